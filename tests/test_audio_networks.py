"""The networks of audio distances, on small random weights of the published layout."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_clap import clap_folder, tokenizer_folder
from torch.nn import functional

from avbench.core import Audio, Clip, InputError, NotMeasurable, Prompt
from avbench.features.audio import networks
from avbench.features.audio.networks import CLAP, PANNs, VGGish, VGGishProtocol, vggish_log_mel
from avbench.features.audio.text import TextAudio, TextAudioProtocol
from avbench.features.networks import filled
from avbench.features.table import Requires
from avbench.metrics.table import known_metrics
from avbench.storage import weights

FRAMES = np.zeros((1, 8, 8, 3), np.uint8)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("AVBENCH_WEIGHTS", str(tmp_path / "cache"))
    monkeypatch.setattr(VGGish, "width", 2)
    monkeypatch.setattr(PANNs, "width", 2)
    return tmp_path


def clip(wave, rate):
    return Clip(FRAMES, 8, Audio(np.atleast_2d(wave).astype(np.float32), rate))


def tune(seconds, rate):
    """A rising tone, and a note struck twice a second."""
    t = np.arange(round(rate * seconds)) / rate
    note = 0.4 * np.exp(-6 * (t % 0.5)) * np.sin(2 * np.pi * 880 * t)
    return (0.3 * np.sin(2 * np.pi * (200 * t + 300 * t**2)) + note).astype(np.float32)


def vggish_state():
    torch.manual_seed(0)
    made = networks.VGGishNetwork(2)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return made.state_dict()


def panns_state():
    torch.manual_seed(0)
    made = networks.Cnn14(2)
    state = {name: torch.randn(value.shape) * 0.3 for name, value in made.state_dict().items() if value.ndim}
    for name in state:
        if name.endswith("running_var"):
            state[name] = state[name] ** 2 + 0.5
    angle = 2 * np.pi * np.outer(np.arange(513), np.arange(1024)) / 1024
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(1024) / 1024)
    for part, wave in (("real", np.cos(angle)), ("imag", -np.sin(angle))):
        state[f"spectrogram_extractor.stft.conv_{part}.weight"] = torch.from_numpy(wave * hann)[:, None].float()
    state["logmel_extractor.melW"] = torch.rand(513, 64) / 100
    state["bn0.running_mean"] -= 20
    return {**state, "fc_audioset.weight": torch.zeros(527, 64), "fc_audioset.bias": torch.zeros(527)}


def user_provided(cache, name, state):
    torch.save(state, cache / f"{name}.pth")
    weights.provide(name, cache / f"{name}.pth")


@pytest.mark.parametrize("build", [VGGish, PANNs, CLAP])
def test_what_was_not_brought_is_asked_for(cache, build):
    with pytest.raises(InputError, match=r"is missing.*then `avbench weights fetch .* --file PATH`"):
        build()


@pytest.mark.parametrize(
    ("build", "count", "shapes"),
    [
        (
            networks.VGGishNetwork,
            18,
            {
                "features.0.weight": (64, 1, 3, 3),
                "features.3.weight": (128, 64, 3, 3),
                "features.8.weight": (256, 256, 3, 3),
                "features.13.bias": (512,),
                "embeddings.0.weight": (4096, 12288),
                "embeddings.2.weight": (4096, 4096),
                "embeddings.4.weight": (128, 4096),
            },
        ),
        (
            networks.Cnn14,
            82,  # and two of the classes, which are not read
            {
                "spectrogram_extractor.stft.conv_imag.weight": (513, 1, 1024),
                "logmel_extractor.melW": (513, 64),
                "bn0.running_mean": (64,),
                "conv_block1.conv1.weight": (64, 1, 3, 3),
                "conv_block6.conv2.weight": (2048, 2048, 3, 3),
                "conv_block6.bn2.num_batches_tracked": (),
                "fc1.weight": (2048, 2048),
            },
        ),
    ],
)
def test_the_layout_is_the_published_one(build, count, shapes):
    with torch.device("meta"):
        state = build().state_dict()
    assert len(state) == count
    assert {name: tuple(state[name].shape) for name in shapes} == shapes


def test_vggish_hears_what_torchvggish_hears():
    """Its log mel values of this sound, at a few places; a whole window less makes one frame less."""
    frames = vggish_log_mel(tune(3.5, 16000).astype(np.float64), VGGishProtocol())
    assert frames.shape == (348, 64)
    for place, right in {(0, 0): 2.14776985, (3, 10): -3.20527591, (50, 31): -4.4611538, (95, 63): -4.6042245}.items():
        assert frames[place] == pytest.approx(right, abs=1e-5)


def test_vggish_is_the_mean_over_its_patches(cache):
    state = vggish_state()
    user_provided(cache, "vggish", {**state, "pproc.pca_means": torch.zeros(128, 1)})
    feature = VGGish()
    wave = tune(3.5, 16000)
    embedding = feature(clip(wave, 16000))["embedding"]
    assert embedding.shape == (128,) and embedding.dtype == np.float32
    parts = [wave[start : start + 15600] for start in (0, 15360, 30720)]
    each = [feature(clip(part, 16000))["embedding"] for part in parts]
    np.testing.assert_allclose(embedding, np.mean(each, axis=0), atol=1e-4 * np.abs(embedding).max())
    assert np.abs(each[0] - each[1]).max() > 1e-2 * np.abs(embedding).max()
    assert (embedding < 0).any(), "taken before the rectifier"
    stereo = np.stack([wave, 0 * wave])
    np.testing.assert_array_equal(
        feature(clip(stereo, 16000))["embedding"], feature(clip(wave / 2, 16000))["embedding"]
    )


def test_vggish_has_tensorflows_order_of_channels(cache):
    state = vggish_state()
    own = {name: value for name, value in state.items() if not name.startswith("pproc.")}
    network = filled(networks.VGGishNetwork(2), own, "VGGish")
    x = torch.randn(2, 1, 96, 64)
    y = x
    for place, pooled in ((0, True), (3, True), (6, False), (8, True), (11, False), (13, True)):
        weight, bias = state[f"features.{place}.weight"], state[f"features.{place}.bias"]
        y = functional.conv2d(y, weight, bias, padding=1).clamp(min=0)
        y = functional.max_pool2d(y, 2) if pooled else y
    y = np.stack([[one[:, row, column].numpy() for row in range(6) for column in range(4)] for one in y]).reshape(2, -1)
    for place in (0, 2, 4):
        y = y @ state[f"embeddings.{place}.weight"].numpy().T + state[f"embeddings.{place}.bias"].numpy()
        y = np.maximum(y, 0) if place < 4 else y
    np.testing.assert_allclose(network(x), y, rtol=1e-3, atol=1e-4 * np.abs(y).max())


@pytest.mark.slow
def test_panns_hear_librosas_decibels():
    librosa = pytest.importorskip("librosa")
    state = panns_state()
    bands = librosa.filters.mel(sr=32000, n_fft=1024, n_mels=64, fmin=50, fmax=14000)
    state["logmel_extractor.melW"] = torch.from_numpy(bands.T)
    own = {name: value for name, value in state.items() if not name.startswith("fc_audioset.")}
    network = filled(networks.Cnn14(2), own, "PANNs")
    wave = tune(1.5, 32000) + 0.01 * np.random.default_rng(0).standard_normal(48000).astype(np.float32)
    settings = {"sr": 32000, "n_fft": 1024, "hop_length": 320, "n_mels": 64, "fmin": 50, "fmax": 14000}
    power = librosa.feature.melspectrogram(y=wave, pad_mode="reflect", **settings)
    right = librosa.power_to_db(power, ref=1.0, amin=1e-10, top_db=None)
    np.testing.assert_allclose(network.log_mel(torch.from_numpy(wave)[None])[0].T, right, atol=1e-2)


def test_panns_are_the_network_of_the_paper(cache):
    state = panns_state()
    user_provided(
        cache, "panns-cnn14", {"model": state, "sampler": {"pointer": np.arange(3), "of": [np.zeros(2, bool)]}}
    )
    feature = PANNs()
    wave = tune(1.2, 32000)
    embedding = feature(clip(wave, 32000))["embedding"]
    assert embedding.shape == (64,) and (embedding >= 0).all() and (embedding > 0).any()
    x = feature._network.log_mel(torch.from_numpy(wave)[None].to(feature._device)).cpu()

    def norm(x, name, axis):
        mean, var, scale, shift = (state[f"{name}.{k}"] for k in ("running_mean", "running_var", "weight", "bias"))
        return ((x.transpose(axis, -1) - mean) / (var + 1e-5).sqrt() * scale + shift).transpose(axis, -1)

    x = norm(x, "bn0", 2)[:, None]
    for n in range(1, 7):
        for step in (1, 2):
            x = functional.conv2d(x, state[f"conv_block{n}.conv{step}.weight"], padding=1)
            x = norm(x, f"conv_block{n}.bn{step}", 1).clamp(min=0)
        x = functional.avg_pool2d(x, 2) if n < 6 else x
    x = x.mean(dim=3)
    x = x.amax(dim=2) + x.mean(dim=2)
    right = (x @ state["fc1.weight"].T + state["fc1.bias"]).clamp(min=0)[0]
    np.testing.assert_allclose(embedding, right, rtol=1e-3, atol=1e-4 * float(right.max()))


def test_a_checkpoint_that_does_not_fit_names_the_tensor(cache):
    for name, build, state in (("vggish", VGGish, vggish_state()), ("panns-cnn14", PANNs, panns_state())):
        first = next(iter(state))
        for wrong, message in (
            ({key: value for key, value in state.items() if key != first}, rf'Missing key.*"{first}"'),
            ({**state, "more": torch.zeros(1)}, r'Unexpected key.*"more"'),
            ({**state, first: torch.zeros(1, 1)}, f"size mismatch for {first}"),
        ):
            user_provided(cache, name, wrong)
            with pytest.raises(InputError, match=f"checkpoint does not fit: {message}"):
                build()


def test_a_checkpoint_with_code_is_not_run(cache):
    class Evil:
        def __reduce__(self):
            return print, ("run",)

    user_provided(cache, "panns-cnn14", {"model": panns_state(), "sampler": Evil()})
    with pytest.raises(InputError, match="cannot be read as a state dict"):
        PANNs()


@pytest.mark.slow
def test_clap_reads_a_folder_of_transformers(cache):
    model, extractor = clap_folder(cache / "tiny")
    weights.provide("clap", cache / "tiny")
    feature = CLAP()
    wave = tune(2, 48000)
    embedding = feature(clip(wave, 48000))["embedding"]
    assert embedding.shape == (8,) and np.linalg.norm(embedding) == pytest.approx(1, abs=1e-5)
    with torch.inference_mode():
        shown = model.get_audio_features(**extractor(wave, sampling_rate=48000, return_tensors="pt"))
    np.testing.assert_allclose(embedding, getattr(shown, "pooler_output", shown)[0], atol=1e-4)
    other = np.random.default_rng(0).uniform(-0.3, 0.3, 96000)
    assert np.abs(feature(clip(other, 48000))["embedding"] - embedding).max() > 1e-4
    long = np.concatenate([np.tile(wave, 5), 0.5 * other.astype(np.float32)])
    first = feature(clip(long, 48000))["embedding"]
    np.testing.assert_array_equal(first, feature(clip(long, 48000))["embedding"])
    np.testing.assert_allclose(first, embedding, atol=1e-4, err_msg="the first 10 s, which are the 2 s repeated")
    (cache / "tiny/model.safetensors").unlink()
    with pytest.raises(InputError, match="cannot be read as a CLAP"):
        CLAP()


@pytest.fixture
def clap_with_words(cache):
    """A tiny CLAP and a tokenizer of whole words, as transformers stores them."""
    model, extractor = clap_folder(cache / "tiny")
    tokenizer_folder(cache / "tiny")
    weights.provide("clap", cache / "tiny")
    return model, extractor


@pytest.mark.slow
def test_sound_and_caption_have_the_cosine_of_transformers_own_model(clap_with_words, monkeypatch):
    model, extractor = clap_with_words
    feature, wave = TextAudio(), tune(2, 48000)
    assert feature.requires is Requires.PROMPT
    seen = {}
    for caption, ids in (("a dull knock", [0, 4, 5, 7, 2]), ("a bright clang", [0, 4, 6, 8, 2])):
        row = feature(clip(wave, 48000), Prompt("a", "a ball", audio_caption=caption))
        inputs = extractor(wave, sampling_rate=48000, return_tensors="pt")
        with torch.inference_mode():
            right = model(input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, 5, dtype=torch.long), **inputs)
        cosine = (right.logits_per_audio / model.logit_scale_a.detach().exp()).item()
        assert row["similarity"] == pytest.approx(cosine, abs=1e-6)
        assert row["truncated"] == 0
        seen[caption] = row
    one, other = seen.values()
    assert one["similarity"] != other["similarity"]
    columns = {name: np.array([one[name], other[name]]) for name in one}
    beyond_chance = known_metrics()["clap_text_audio_excess"].of_clips
    excess = beyond_chance(columns)
    assert excess[0] == pytest.approx(one["similarity"] - other["similarity"], abs=1e-6)
    assert excess.sum() == pytest.approx(0, abs=1e-6), "one sound, two captions: what one gains the other loses"
    with pytest.raises(NotMeasurable, match="the same audio caption"):
        beyond_chance({name: values[:1] for name, values in columns.items()})
    monkeypatch.setattr(TextAudio, "protocol", replace(TextAudioProtocol(), tokens=4))
    cut = feature(clip(wave, 48000), Prompt("a", "a ball", audio_caption="a dull knock"))
    assert cut["truncated"] == 1 and cut["similarity"] != one["similarity"]
    for caption in (None, "", "  "):
        with pytest.raises(NotMeasurable, match="no audio caption"):
            feature(clip(wave, 48000), Prompt("a", "a ball", audio_caption=caption))


@pytest.mark.slow
def test_a_clap_without_tokenizer_or_text_network_is_refused(clap_with_words, cache):
    from safetensors.torch import load_file, save_file

    for place in (cache / "tiny").glob("tokenizer*"):
        place.rename(cache / place.name)
    with pytest.raises(InputError, match="has no tokenizer"):
        TextAudio()
    for place in cache.glob("tokenizer*"):
        place.rename(cache / "tiny" / place.name)
    tensors = load_file(cache / "tiny/model.safetensors")
    heard = {name: tensor for name, tensor in tensors.items() if not name.startswith("text_projection")}
    save_file(heard, cache / "tiny/model.safetensors", {"format": "pt"})
    CLAP()
    with pytest.raises(InputError, match="text_projection"):
        TextAudio()


def test_what_cannot_be_measured_says_why(cache):
    clap_folder(cache / "tiny")
    weights.provide("clap", cache / "tiny")
    user_provided(cache, "vggish", vggish_state())
    user_provided(cache, "panns-cnn14", panns_state())
    for build, rate, least, reason in (
        (VGGish, 16000, 15600, "VGGish needs 975 ms"),
        (PANNs, 32000, 9920, "PANNs needs 310 ms"),
        (CLAP, 48000, 48000, "CLAP needs 1000 ms"),
    ):
        feature = build()
        wave = tune(1, rate)[:least]
        assert np.isfinite(feature(clip(wave, rate))["embedding"]).all()
        for short in (wave[:-1], wave[: rate // 100]):
            with pytest.raises(NotMeasurable, match=f"ms of sound; {reason}"):
                feature(clip(short, rate))
        silent, cancelled = "the track is silent", "its channels cancel each other"
        for unheard, why in ((0 * wave, silent), (1e-5 * wave, silent), ([wave, -wave], cancelled)):
            with pytest.raises(NotMeasurable, match=why):
                feature(clip(unheard, rate))
        with pytest.raises(NotMeasurable, match="no sound"):
            feature(Clip(FRAMES, 8))

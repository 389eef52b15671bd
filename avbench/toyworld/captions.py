"""Writes a scene's captions by a small grammar: one for the picture, one for the sound, in several wordings.

A caption mentions only what the scene fixes (bodies, materials, colours, side, speed). Two things that some mention are
not fixed: balls that collide may sound again as they bounce apart, and all blocks under a hammer have one size.
"""

from avbench.toyworld.scene import BodySpec, Scene

WORDINGS = 3
"""Number of wordings that each family has for each kind of caption."""

_FLOORS = {"rubber": "a rubber mat", "wood": "a wooden floor", "metal": "a metal plate", "glass": "a glass table"}
_ADJECTIVES = {"rubber": "rubber", "wood": "wooden", "metal": "metal", "glass": "glass"}
_NUMBERS = {2: "two", 3: "three", 4: "four", 5: "five"}
_SOUNDS = {
    "rubber": ("thud", "soft dull thud"),
    "wood": ("knock", "dry wooden knock"),
    "metal": ("clang", "ringing metallic clang"),
    "glass": ("clink", "bright glassy clink"),
}
_QUIET = ("A quiet room; nothing strikes anything.", "Only faint room noise.", "Near silence, with no impact sounds.")

_PICTURES: dict[str, tuple[str, ...]] = {
    "drop": (
        "{things} {falls} onto {floor} and {bounces}.",
        "Dropped from above, {things} {hits} {floor}.",
        "{things} {falls} down and {lands} on {floor}.",
    ),
    "collide": (
        "{a} and {b} roll towards each other on {floor} and collide.",
        "On {floor}, {a} runs into {b}.",
        "Two balls meet head-on on {floor}: {a} and {b}.",
    ),
    "projectile": (
        "{things}, thrown from the {side}, hits a wall and bounces back.",
        "From the {side}, {things} flies against a wall above {floor}.",
        "{things} is hurled at a wall from the {side} and rebounds.",
    ),
    "cradle": (
        "{count} {plural} hang in a row; the {side} one swings in and strikes the others.",
        "A cradle of {count} {plural}: the ball on the {side} swings down and clicks against the rest.",
        "The outermost of {count} hanging {plural} swings in from the {side} and knocks into its neighbours.",
    ),
    "hammer": (
        "A hammer with {a_head} swings down from the {side} and strikes {b} on {floor}.",
        "{b} on {floor} is struck by a hammer with {a_head}, swung from the {side}.",
        "Swung from the {side}, a hammer with {a_head} hits {b} standing on {floor}.",
    ),
    "dominoes": (
        "A row of {count} {plural} topples from the {side} on {floor}.",
        "{count} {plural} stand in a row on {floor}; pushed from the {side}, they fall like dominoes.",
        "Like dominoes, {count} {plural} knock each other over on {floor}, starting on the {side}.",
    ),
    "pendulum": (
        "{things} hangs from a rod and swings {speedily} from the {side}.",
        "A pendulum with {things} swings {speedily} to and fro, starting on the {side}.",
        "{things} on a rod swings {speedily} through the air, released on the {side}.",
    ),
    "oscillate": (
        "{things} slides {speedily} back and forth along a rail, starting on the {side}.",
        "On a rail, {things} moves {speedily} to and fro from the {side}.",
        "{things} oscillates {speedily} on a straight rail, first seen on the {side}.",
    ),
    "drift": (
        "{things} {floats} slowly past, coming from the {side}.",
        "Weightless, {things} {drifts} slowly away from the {side}.",
        "{things} {drifts} slowly through the picture, touching nothing, from the {side}.",
    ),
}

_HEARD: dict[str, tuple[str, ...]] = {
    "drop": (
        "A {long} as something lands, then bounces.",
        "{Short}s on {floor}, dying away.",
        "Falling and bouncing: {long}s.",
    ),
    "collide": ("A single {long} as two balls meet.", "One {long}.", "Rolling bodies meet with a {long}."),
    "projectile": ("A {long} against a wall.", "Something hits a wall with a {long}.", "A {long}, then softer ones."),
    "cradle": ("Regular {long}s.", "A steady clicking: {long} after {long}.", "{Short}s repeat evenly."),
    "hammer": ("A heavy {long} of a hammer.", "A hammer blow: a {long}.", "A hammer strikes with a {long}."),
    "dominoes": ("A quick run of {long}s.", "Rattling {short}s, one after another.", "Several {long}s in a row."),
    "pendulum": _QUIET,
    "oscillate": _QUIET,
    "drift": _QUIET,
}


def video_caption(scene: Scene, wording: int) -> str:
    """The caption of the picture; `wording` counts from 0 and wraps around."""
    several = len(scene.bodies) > 1
    first, last = scene.bodies[0], scene.bodies[-1]
    verbs = {
        verb: verb.removesuffix("s") if several else verb for verb in ("falls", "floats", "drifts", "hits", "lands")
    }
    text = _PICTURES[scene.family][wording % WORDINGS].format(
        **verbs,
        bounces="bounce" if several else "bounces",
        things=" and ".join(_named(body) for body in scene.bodies) if several else _named(first),
        a=_named(first),
        b=_named(last),
        a_head=f"{_article(first.colour)} {first.colour} {_ADJECTIVES[first.material]} head",
        count=_NUMBERS.get(len(scene.bodies), "one"),
        plural=_plural(first, "slabs" if scene.family == "dominoes" else "balls"),
        floor=_FLOORS[scene.floor],
        side=scene.side,
        speedily={"slow": "slowly", "fast": "fast"}[scene.speed],
    )
    return text[0].upper() + text[1:]


def audio_caption(scene: Scene, wording: int) -> str:
    """The caption of the sound; `wording` counts from 0 and wraps around."""
    short, long = _SOUNDS[scene.bodies[-1].material]
    return _HEARD[scene.family][wording % WORDINGS].format(
        short=short, Short=short.capitalize(), long=long, floor=_FLOORS[scene.floor]
    )


def _named(body: BodySpec) -> str:
    return f"a {body.size} {body.colour} {_ADJECTIVES[body.material]} {body.shape}"


def _plural(body: BodySpec, noun: str) -> str:
    return f"{body.colour} {_ADJECTIVES[body.material]} {noun}"


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"

"""Reads VGGSound: vggsound.csv (YouTube id, start in seconds, label, split), clips ``<id>_<start, six digits>.mp4``.

The clips may be in the folder itself, in a subfolder, or in one subfolder per class. Many are no longer available, so
the existing files are looked up once and the missing ones counted. The tags `av_tight` and `av_loose` are the class
lists of arXiv 2512.02457, Table 6: sounds made by a visible action, and sounds of the surroundings, as its authors
judged them. 126 of the 309 classes are in neither list.
"""

from collections.abc import Iterator
from pathlib import Path

from avbench.core import InputError
from avbench.storage.media.clip_files import clips_by_stem
from avbench.subsets.datasets import Entry, identifier, required, rows

_TIGHT = """
    arc welding; bathroom ventilation fan running; beat boxing; cattle, bovinae cowbell; chainsawing trees;
    child speech, kid speaking; chopping food; chopping wood; church bell ringing; cutting hair with electric trimmers;
    disc scratching; driving motorcycle; electric grinder grinding; electric shaver, electric razor shaving;
    eletric blender running; firing cannon; firing muskets; forging swords; metronome; missile launch;
    motorboat, speedboat acceleration; ocean burbling; opening or closing car electric windows; planing timber;
    playing guiro; playing saxophone; printer printing; ripping paper; rope skipping; sharpen knife; singing bowl;
    skateboarding; spraying water; strike lighter; striking pool; toilet flushing; typing on computer keyboard"""
_LOOSE = """
    air conditioning noise; air horn; airplane; airplane flyby; alligators, crocodiles hissing; ambulance siren;
    baby crying; baby laughter; baltimore oriole calling; barn swallow calling; basketball bounce; bee, wasp, etc.
    buzzing; bird chirping, tweeting; bird squawking; blowtorch igniting; bouncing on trampoline; bowling impact;
    bull bellowing; canary calling; cap gun shooting; car engine idling; car engine starting; car passing by; cat
    caterwauling; cat meowing; cat purring; cattle mooing; cell phone buzzing; cheetah chirrup; chicken clucking;
    chicken crowing; child singing; chimpanzee pant-hooting; chinchilla barking; chipmunk chirping; civil defense
    siren; cow lowing; coyote howling; cricket chirping; crow cawing; cuckoo bird calling; cupboard opening or
    closing; dinosaurs bellowing; dog barking; dog bow-wow; dog growling; dog howling; donkey, ass braying;
    driving buses; driving snowmobile; duck quacking; eagle screaming; eating with cutlery; elephant trumpeting;
    elk bugling; engine accelerating, revving, vroom; female singing; female speech, woman speaking; ferret
    dooking; fire truck siren; fly, housefly buzzing; foghorn; footsteps on snow; francolin calling; frog
    croaking; gibbon howling; male speech, man speaking; mosquito buzzing; mouse pattering; mouse squeaking; mynah
    bird singing; opening or closing drawers; orchestra; otter growling; owl hooting; parrot talking; penguins
    braying; people burping; people hiccup; people running; people screaming; people sneezing; pheasant crowing;
    pig oinking; pigeon, dove cooing; plastic bottle crushing; playing flute; playing harpsichord; playing
    washboard; police car (siren); police radio chatter; popping popcorn; pumping water; race car, auto racing;
    railroad car, train wagon; raining; rapping; reversing beeps; roller coaster running; rowboat, canoe, kayak
    rowing; running electric fan; sailing; scuba diving; sea lion barking; sea waves; sheep bleating; shot
    football; singing choir; skidding; skiing; sliding door; sloshing water; slot machine; smoke detector beeping;
    snake hissing; snake rattling; splashing water; squishing water; stream burbling; striking bowling; subway,
    metro, underground; swimming; tap dancing; tapping guitar; telephone bell ringing; thunder; tornado roaring;
    tractor digging; train horning; train wheels squealing; train whistling; turkey gobbling; underwater bubbling;
    using sewing machines; vacuum cleaner cleaning floors; vehicle horn, car horn, honking; volcano explosion;
    warbler chirping; waterfall burbling; whale calling; wind noise; wood thrush calling; woodpecker pecking tree;
    writing on blackboard with chalk; yodelling; zebra braying"""
AV_TIGHT, AV_LOOSE = (frozenset(" ".join(names.split()).split("; ")) for names in (_TIGHT, _LOOSE))
"""37 and 146 classes, spelled as in VGGSound; the published table has twelve misspellings, such as ``arc welking``."""


def read(folder: Path) -> Iterator[Entry]:
    """Yield entries in the list's order."""
    listed = required(folder, "vggsound.csv", what="VGGSound")
    there = clips_by_stem(folder)
    for number, (video, start, label, split, *_) in enumerate(rows(listed, 4), start=1):
        if not start.strip().isdigit() or split not in ("train", "test"):
            msg = f"{listed}, row {number}: {start!r} is no start in seconds, or {split!r} is neither train nor test"
            raise InputError(msg)
        name = f"{video}_{int(start):06d}"
        yield Entry(
            identifier(name),
            there.get(name) or there.get(f"{video}_{int(start)}") or folder / f"{name}.mp4",
            split=split,
            tags={"class": label, "av_tight": label in AV_TIGHT, "av_loose": label in AV_LOOSE},
        )

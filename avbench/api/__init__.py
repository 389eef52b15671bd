r"""What the command line does, callable from Python: score folders of clips, run models, compare runs.

```python
import avbench

found = avbench.score(["out/a", "out/b"], reference="real/")
print("\n".join(found.verdict))
found.save_report("report/")
```
"""

from avbench.api.choices import (
    chosen_subsets,
    fetching,
    model_folders,
    named_arms,
    named_folders,
    shard_folder,
    share_of,
)
from avbench.api.comparing import compare, compare_arms, compared
from avbench.api.references import RealClips, build_reference, reference_of
from avbench.api.results import ArmComparison, Comparison
from avbench.api.running import DEMO_MODELS, run
from avbench.api.scoring import score
from avbench.api.stages import evaluated, measurable, measured, opened, sampled
from avbench.api.work import Reporter, SamplingJob, Silent, Work
from avbench.storage.mirrors.mirror import Mirrors

__all__ = [
    "DEMO_MODELS",
    "ArmComparison",
    "Comparison",
    "Mirrors",
    "RealClips",
    "Reporter",
    "SamplingJob",
    "Silent",
    "Work",
    "build_reference",
    "chosen_subsets",
    "compare",
    "compare_arms",
    "compared",
    "evaluated",
    "fetching",
    "measurable",
    "measured",
    "model_folders",
    "named_arms",
    "named_folders",
    "opened",
    "reference_of",
    "run",
    "sampled",
    "score",
    "shard_folder",
    "share_of",
]

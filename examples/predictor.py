"""Segment by example, in Python: run it whole, or cell by cell in an editor that knows `# %%`.

python examples/predictor.py                       # draws its own sample studies
python examples/predictor.py --studies FOLDER      # a folder that scripts/make_samples.py made
"""

# %% A folder with labelled and unlabelled studies
import argparse
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from proxyprompt import ProxyPromptPredictor
from proxyprompt.datasets.samples import make_samples

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--studies", type=Path, help="made by scripts/make_samples.py; drawn anew without it")
parser.add_argument("--out", type=Path, help="folder of the results; a temporary one without it")
options = parser.parse_args()
folder = options.studies or Path(tempfile.mkdtemp()) / "studies"
out = options.out or Path(tempfile.mkdtemp())
if options.studies is None:
    make_samples(folder)
labels = folder / "labels" / "final"

# %% Show it two labelled images of another "patient"
predictor = ProxyPromptPredictor.from_pretrained("atto")
supports = sorted(labels.glob("us_*"))[:2]
images = [folder / label.name for label in supports]
masks = [np.asarray(Image.open(label)) for label in supports]  # 1 is the head, 2 the symphysis; files would do as well
predictor.set_support(images, masks, ["head", "symphysis"])

# %% Segment an image that nobody labelled
target = next(path for path in sorted(folder.glob("us_*.png")) if not (labels / path.name).exists())
prediction = predictor.predict(target, agreement=True)
for name, presence, agreement in zip(prediction.names, prediction.presence[0], prediction.agreement, strict=True):
    print(f"{target.name}: {name} {prediction[name].sum()} pixels, presence {presence:.2f}, agreement {agreement:.2f}")
print("written:", prediction.save(out / target.name))

# %% A click where something is missing, one where too much was drawn: (x, y, 1) and (x, y, 0)
rows, columns = np.nonzero(prediction["head"])
corrected = predictor.predict(target, points={"head": [(columns.mean(), rows.mean(), 1), (5, 5, 0)]})
print(f"{target.name}: head {corrected['head'].sum()} pixels after two clicks")

# %% A volume by a volume: every slice, on the volume's own grid
labelled = sorted(labels.glob("mr_*"))[0]
predictor.set_support(folder / labelled.name, labelled, ["organ", "nodule"])
target = next(path for path in sorted(folder.glob("mr_*.nii.gz")) if not (labels / path.name).exists())
prediction = predictor.predict_volume(target)
print(f"{target.name}: organ {prediction['organ'].sum()} voxels of {prediction['organ'].shape}")
print("written:", prediction.save(out / target.name))

"""Values of masks -> classes, checked over all masks of a data set before anything is trained."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from downstream.common.pictures import checked, decoded_size, picture_size
from downstream.segmentation.masks import VOID, MaskedImage, read_mask
from pixpro.errors import UserError


@dataclass(frozen=True)
class SegmentationSet:
    """Images to train on and to test on, with the values in their masks, and the names, of classes 0, 1, ..."""

    train: list[MaskedImage]
    test: list[MaskedImage]
    values: Sequence[int]
    class_names: Sequence[str]

    @property
    def num_classes(self) -> int:
        """How many classes there are, the background, where it is one, among them."""
        return len(self.values)

    @property
    def classes(self) -> np.ndarray:
        """(256,), the class of every value; 255 is void unless it is a class, -1 is a value that must not occur."""
        table = np.full(256, -1)
        table[VOID] = VOID
        table[list(self.values)] = np.arange(len(self.values))
        return table


def count_values(pairs: list[MaskedImage], *, tests: bool) -> np.ndarray:
    """(n, 256): how many pixels of each mask have each value. UserError for files that cannot be read or do not fit.

    tests: pictures to test on, which are decoded here; of the others the header is read.
    """
    size_of = decoded_size if tests else picture_size

    def count(pair: MaskedImage) -> np.ndarray:
        values, size = read_mask(pair.mask), size_of(pair.image)
        if values.shape != size[::-1]:
            raise UserError(f"{pair.mask} is {values.shape[::-1]}, its image {size}; expected the same size")
        return np.bincount(values.ravel(), minlength=256)

    return np.array(checked(pairs, count, by_all_cores=True), np.int64).reshape(-1, 256)


def check_labels(data: SegmentationSet, train: np.ndarray, test: np.ndarray) -> Iterable[str]:
    """A line for each thing that makes the score mean less; UserError for what leaves nothing to score.

    train, test: pixels of every mask by value, of `count_values`.
    """
    for pairs, counts in ((data.train, train), (data.test, test)):
        strange = counts[:, data.classes < 0].any(axis=1)
        if strange.any():
            pair, row = pairs[int(strange.argmax())], counts[int(strange.argmax())]
            value = int(np.flatnonzero((row > 0) & (data.classes < 0)).max())
            raise UserError(
                f"{pair.mask} has the value {value} (and {strange.sum() - 1} more masks such values); "
                f"expected 0 to {data.num_classes - 1} or {VOID}: --num-classes"
            )
    values = list(data.values)
    learnt, asked = (counts.sum(axis=0)[values] for counts in (train, test))
    has_void = VOID not in values and bool(train[:, VOID].any() or test[:, VOID].any())
    offer = f"; {VOID} is void here: if it is a class, give --void none" if has_void else ""
    if data.train and (learnt > 0).sum() < 2:
        held = ", ".join(str(value) for value, count in zip(values, learnt, strict=True) if count) or "no class"
        raise UserError(f"the training masks hold one class ({held}): every score would be 100 %{offer}")
    if not asked.any():
        raise UserError(f"no pixel of the test masks counts: there would be nothing to score{offer}")
    for said, here, elsewhere in (("test", learnt, asked), ("training", asked, learnt)):
        names = [name for name, a, b in zip(data.class_names, here, elsewhere, strict=True) if a and not b]
        if names and data.train:
            effect = "they are not scored" if said == "test" else "they cannot be learnt"
            yield f"the {said} masks have none of {len(names)} classes ({', '.join(names[:5])}): {effect}"
    share = test[:, VOID].sum() / test.sum()
    if has_void and share > 0.5:
        yield f"{100 * share:.0f} % of the test's pixels are void ({VOID}), not scored; if it is a class: --void none"
    shared = {pair.image for pair in data.train} & {pair.image for pair in data.test}
    if shared:
        yield f"{len(shared)} of the {len(data.test)} test images are trained on: the score says little"

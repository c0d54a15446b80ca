"""The developer's part: try a model on the mock rows, submit it, read what was released."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from clearinghouse.client.keystore import Keystore
from clearinghouse.errors import InputError, NotFoundError, RefusedError
from clearinghouse.features import encode
from clearinghouse.money import MICRO
from clearinghouse.onsite.box import Box
from clearinghouse.onsite.hospital import label_levels, mock_rows
from clearinghouse.onsite.jail import evaluate
from clearinghouse.onsite.papers import (
    JOB_FILE,
    LOWEST,
    MODEL_FILE,
    OFFER_FILE,
    RELEASE_FILE,
    TOP,
    Job,
    Offer,
    check_edges,
    check_email,
    check_word,
    feature_names,
    read_job,
    read_offer,
    to_bytes,
)
from clearinghouse.onsite.releases import Result, read_release
from clearinghouse.schema import Schema
from clearinghouse.score_cards import task_of
from clearinghouse.signing import VerifyKey, b64encode

OUTSIDE = 0.01
"""A model is not submitted if more of its mock scores than this lie outside 0 to 1 or are none."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What a developer asks.

    Attributes:
        hospital: Its email.
        dataset: Of its offer.
        name: Of the job.
        cuts: Inner edges of the bins, rising, of 1 or of the label's range; None for even bins.
        threshold: From which score a row counts as predicted positive.
        repeat: 0, or the number of a fresh release of the same model.
    """

    hospital: str
    dataset: str
    name: str
    cuts: Sequence[Fraction] | None = None
    threshold: Fraction = Fraction(1, 2)
    repeat: int = 0


class Developer:
    """A developer with a SyftBox folder."""

    def __init__(self, keystore: Keystore, box: Box) -> None:
        self.keystore, self.box = keystore, box

    def offer(self, hospital: str, dataset: str) -> tuple[Offer, Schema]:
        """An offer, whose key must be the one that this home saw first.

        Raises:
            NotFoundError: It did not come yet.
            RefusedError: The hospital's key is another one than before.
        """
        check_email(hospital, "--hospital")
        folder = self.box.dataset(hospital, check_word(dataset, "--dataset"))
        offer, schema = read_offer((folder / OFFER_FILE).read_bytes())
        if (offer.email, offer.dataset) != (hospital, dataset):
            raise RefusedError(f"the offer in {folder} is of another hospital or dataset")
        known = self.keystore.recall(f"onsite/hospitals/{hospital}")
        if known is not None and known["key"] != offer.key:
            raise RefusedError(
                f"{hospital} signs with another key than before. Ask the hospital by another way, "
                f"then remove onsite/hospitals/{hospital}.json from this home"
            )
        self.keystore.remember(f"onsite/hospitals/{hospital}", {"key": offer.key})
        return offer, schema

    def submit(self, model: bytes, wish: Wish) -> tuple[Job, str]:
        """Try a model on the mock rows, then write the job into this box's copy of the inbox.

        Returns:
            The job, and the id of the key that the answer must be signed by.

        Raises:
            InputError: The model or the bins are refused, here as they would be there.
            ConflictError: A job of this name was submitted before.
        """
        offer, schema = self.offer(wish.hospital, wish.dataset)
        check_word(wish.name, "--job")
        edges, threshold_edge = _edges(wish, offer, schema)
        self._try(model, wish, schema)
        job = Job(
            dataset=wish.dataset,
            hospital=wish.hospital,
            developer=self.box.email,
            model_sha256=hashlib.sha256(model).hexdigest(),
            model_bytes=len(model),
            schema_sha256=schema.digest(),
            columns=feature_names(schema),
            epsilon_micro=offer.epsilon_micro,
            edges=edges,
            threshold_edge=threshold_edge,
            repeat=wish.repeat,
        )
        read_job(to_bytes(job), offer, schema)  # what the hospital would refuse is an error here
        files = {JOB_FILE: to_bytes(job), MODEL_FILE: b64encode(model).encode()}
        self.box.submit(wish.hospital, wish.name, wish.dataset, files)
        asked = {"job": to_bytes(job).decode(), "offer": to_bytes(offer).decode()}
        self.keystore.remember(f"onsite/jobs/{wish.hospital}/{wish.name}", asked)
        return job, VerifyKey.from_base64(offer.key).key_id

    def _try(self, model: bytes, wish: Wish, schema: Schema) -> None:
        """Run the model on the mock rows as the hospital will.

        Raises:
            InputError: It fails on some, or gives no probabilities.
        """
        mock = mock_rows(self.box.dataset(wish.hospital, wish.dataset), schema)
        scores = evaluate(model, encode(schema, mock), label_levels(schema)).scores
        odd = ~np.isfinite(scores)
        if schema.label.kind == "category":
            odd |= (scores < 0) | (scores > 1)
        share = float(odd.any(axis=1).mean())
        if share > OUTSIDE:
            raise InputError(
                f"on {100 * share:.0f}% of the mock rows the model fails or gives no number from "
                "0 to 1. Export it with probabilities"
            )

    def collect(self, hospital: str, name: str) -> Result:
        """Verify what the hospital released for a job.

        Raises:
            NotFoundError: Nothing came yet.
            VerificationError: It is not the hospital's answer to this job.
        """
        check_email(hospital, "--hospital")
        asked = self.keystore.recall(f"onsite/jobs/{hospital}/{check_word(name, 'JOB')}")
        if asked is None:
            raise NotFoundError(f"this home submitted no job '{name}' to {hospital}")
        offer, schema = read_offer(asked["offer"].encode())
        job = read_job(asked["job"].encode(), offer, schema)
        path = self.box.outputs(hospital, name) / RELEASE_FILE
        if not path.is_file():
            raise NotFoundError(
                f"{hospital} has released nothing for '{name}' yet, or it was not carried here"
            )
        return read_release(path.read_bytes(), offer, job, name)


def _edges(wish: Wish, offer: Offer, schema: Schema) -> tuple[tuple[int, ...], int]:
    """Edges in millionths, and the index of the threshold among them.

    Raises:
        InputError: The cuts do not rise, are too many, or leave the threshold out.
    """
    task = task_of(schema.label)
    lowest = LOWEST[task]
    if wish.cuts is None:
        width = (MICRO - lowest) // offer.bins
        inner = [lowest + width * k for k in range(1, offer.bins)]
    else:
        inner = [int(cut * MICRO) for cut in wish.cuts]
    edges = (lowest, *inner, TOP)
    check_edges(edges, 0, offer.bins, schema, "--cuts")
    if task == "number":  # residuals have no threshold
        return edges, 0
    threshold = int(wish.threshold * MICRO)
    if threshold not in edges:
        raise InputError(f"--threshold {float(wish.threshold):g} is no edge of the bins: add a cut")
    return edges, edges.index(threshold)

"""The arbiter: is geometric noise the committed one? Protocol section 8 (docs/protocol.md).

An arbiter is given one release's noise key, knows its exact counts from then on, and is bound to
silence. Committed coins need none: they are tested in every run.
"""

from collections.abc import Sequence

from secure_eval import framing
from secure_eval.class_models import ClassModels, model_parts
from secure_eval.encrypted_noise import encrypted_noise
from secure_eval.framing import Kind
from secure_eval.layout import Shapes
from secure_eval.noise import Table, commitment, table_noise
from secure_eval.nonces import NO_DEVELOPER
from secure_eval.one_class import class_run_id, split_parts
from secure_eval.packing import FULL_BYTES
from secure_eval.public_keys import PublicKeys
from secure_eval.replay import TargetTranscript, Transcript, Verdict, check_record, refuted

__all__ = ["check_noise", "check_target_noise"]

_PROVEN = Verdict(True, None, None, "the noise is the committed one, bit for bit")


def check_noise(
    transcript: Transcript, noise_key: bytes, tables: Sequence[Table], *, of_class: int = 0
) -> Verdict:
    """Rebuild the key holder's noise ciphertext from the run's revealed noise key.

    Args:
        transcript: with the digits and characters messages.
        noise_key: the run's key, 32 bytes.
        tables: what was agreed to be released, with epsilons; of the class alone, if one is meant.
        of_class: of a run of one model a class: whose noise key it is.

    Returns:
        Reproduced, or the key holder (or the record) at fault.

    Raises:
        ValueError: a key or nonce of another length, or a run with committed coins.
    """
    if transcript.coins:
        raise ValueError("committed coins are tested in the run; there is nothing to arbitrate")
    found = check_record(transcript)
    if found is not None:
        return found
    messages, layout = transcript.messages, transcript.layout
    for name in ("digits", "characters"):
        if name not in messages:
            return refuted(name, "record", "it is missing")
    run_id, labels, parts = transcript.run_id, layout.labels, model_parts(transcript.model)
    try:
        if isinstance(transcript.model, ClassModels):  # each class has a key of its own
            run_id, labels = class_run_id(run_id, of_class), 2
            messages = {
                name: split_parts(messages[name], len(parts))[of_class]
                for name in ("digits", "characters")
            }
        shapes = Shapes(layout.n_blocks, labels, parts[0].bins, 0)
        committed = framing.decode(messages["digits"], Kind.DIGITS, shapes.digits())[0]
        sent = framing.decode(messages["characters"], Kind.CHARACTERS, shapes.characters())[0]
    except ValueError as error:
        return refuted("noise", "key holder", str(error))
    noise = table_noise(noise_key, run_id, transcript.nonces, tables)
    if bytes(committed) != commitment(noise_key):
        return refuted("digits", "key holder", "the revealed noise key is not the committed one")
    public_key = PublicKeys.from_bytes(transcript.keys).public_key
    if bytes(sent) != encrypted_noise(public_key, noise_key, run_id, noise):
        return refuted("characters", "key holder", "the noise is not the one that was committed")
    return _PROVEN


def check_target_noise(
    transcript: TargetTranscript, noise_key: bytes, epsilon_micro: int
) -> Verdict:
    """Rebuild the noise ciphertext of a target from its revealed noise key.

    Args:
        transcript: with the commitment and noise messages and the nonce.
        noise_key: the target's key, 32 bytes.
        epsilon_micro: what was agreed.

    Returns:
        Reproduced, or the key holder (or the record) at fault.

    Raises:
        ValueError: a key or nonce of another length.
    """
    found = check_record(transcript)
    if found is not None:
        return found
    for name in ("commitment", "noise"):
        if name not in transcript.messages:
            return refuted(name, "record", "it is missing")
    try:
        sent = framing.decode(transcript.messages["noise"], Kind.TARGET_NOISE, [FULL_BYTES])[0]
    except ValueError as error:
        return refuted("noise", "key holder", str(error))
    if transcript.messages["commitment"] != commitment(noise_key):
        return refuted("commitment", "key holder", "the revealed noise key is not the one")
    cells = transcript.layout.cells * transcript.layout.labels
    tables = [Table("target", cells, epsilon_micro)]
    nonces = (transcript.nonce, NO_DEVELOPER)
    noise = table_noise(noise_key, transcript.run_id, nonces, tables)
    public_key = PublicKeys.from_bytes(transcript.keys).public_key
    if bytes(sent) != encrypted_noise(public_key, noise_key, transcript.run_id, noise):
        return refuted("noise", "key holder", "the noise is not the one that was committed")
    return _PROVEN

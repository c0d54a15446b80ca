"""A process beside a worker's: computes blocks of runs, one step at a time; see `block_pool`."""

from clearinghouse.worker_process import guarded


def main() -> None:
    """Compute blocks until the worker is gone."""
    with guarded() as (options, tasks_in, answers_out):
        from clearinghouse import jobs  # here, under the limits just set
        from clearinghouse.blobs.place import BlobPlace
        from clearinghouse.block_pool import write_arrays
        from clearinghouse.worker import fault, read_frame, write_frame

        state = jobs.Jobs(BlobPlace.from_json(options["blobs"]).open())
        while True:
            task = read_frame(tasks_in)
            try:
                for arrays in jobs.units(state, task["step"], task["units"], task["arguments"]):
                    write_arrays(answers_out, arrays)
            except BrokenPipeError:
                raise
            except Exception as error:  # noqa: BLE001  the worker's job fails with it
                write_frame(answers_out, fault(error))


if __name__ == "__main__":
    main()

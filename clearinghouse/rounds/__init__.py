"""The server's side of the seven steps: one file a step, and the pipeline that orders them."""

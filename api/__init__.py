"""HTTP edge: FastAPI app, routes by step, authentication, problem+json errors."""

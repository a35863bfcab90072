"""Access to the Hub: names it takes, what it refuses as one line, its client's progress bars."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


def check_repo_id(repo_id: str) -> None:
    """Raises ValueError unless `repo_id` reads ORG/NAME with characters that the Hub takes."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo_id)
        valid = "/" in repo_id
    except HFValidationError:
        valid = False
    if not valid:
        raise ValueError(f"repo_id: {repo_id!r} is not allowed; give ORG/NAME of letters, digits, '-', '_' and '.', such as org/laz-retrieval")


@contextlib.contextmanager
def refusals_as_value_errors(repo_id: str, token: str | None) -> Iterator[None]:
    """Turns what the Hub or the way to it refuses into one ValueError that says what to do."""
    from huggingface_hub import get_token
    from huggingface_hub.errors import HfHubHTTPError

    if not (token or get_token()):
        raise ValueError("token: none was given or found; run `hf auth login` or set HF_TOKEN to a token that may write")
    try:
        yield
    except (*HfHubHTTPError.__bases__, RuntimeError) as error:  # of the HTTP client, whichever that is, of the system, of an upload
        response = getattr(error, "response", None) or getattr(error.__cause__, "response", None)
        status = getattr(response, "status_code", None)
        said = getattr(error, "server_message", None) or str(error) or type(error).__name__
        reasons = {
            401: "token: the Hub does not know it; run `hf auth login` or set HF_TOKEN to a token that may write",
            403: f"repo_id: the token may not write to {repo_id!r}",
            412: f"repo_id: somebody pushed to {repo_id!r} at the same time; look at it, then publish again",
        }
        reason = reasons.get(status, f"repo_id: publishing to {repo_id!r} failed, and can be tried again")
        raise ValueError(f"{reason} ({' '.join(said.split())})") from error


@contextlib.contextmanager
def hub_progress_bars(shown: bool) -> Iterator[None]:
    """Keeps the Hub client's own bars silent where they are not to be `shown`."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    silence = not shown and not are_progress_bars_disabled()
    if silence:
        disable_progress_bars()
    try:
        yield
    finally:
        if silence:
            enable_progress_bars()

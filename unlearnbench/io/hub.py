"""The Hub's errors, as one sentence each."""

from __future__ import annotations

import errno
import http.client
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from unlearnbench.errors import RunError, first_line


def quiet_hub() -> None:
    """Keep messages of huggingface_hub off standard error: its retries, and progress bars without a terminal."""
    from huggingface_hub.utils.logging import set_verbosity_error
    from huggingface_hub.utils.tqdm import disable_progress_bars

    set_verbosity_error()  # type: ignore[no-untyped-call]  # it prints retries in many lines, then the error again
    if not sys.stderr.isatty():
        disable_progress_bars()


@contextmanager
def hub_errors(doing: str, instead: str) -> Iterator[None]:
    """Turns what huggingface_hub raises in the block into a RunError of one sentence; `instead` says a way round."""
    from huggingface_hub import errors

    quiet_hub()
    try:
        yield
    except errors.LocalTokenNotFoundError as error:
        raise RunError(f"{doing}: there is no token; run `hf auth login`, or set HF_TOKEN") from error
    except errors.GatedRepoError as error:
        raise RunError(
            f"{doing}: the repository is gated; accept its terms on its page and log in (`hf auth login`), or {instead}"
        ) from error
    except errors.HfHubHTTPError as error:
        raise RunError(f"{doing}: {_refusal(error)}; {instead}") from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, ConnectionError) as error:
        if isinstance(error.__cause__, errors.HfHubHTTPError):  # it was reached, and refused
            raise RunError(f"{doing}: {_refusal(error.__cause__)}; {instead}") from error
        raise RunError(f"{doing}: the Hub cannot be reached; fix the network connection, or {instead}") from error
    except errors.HFValidationError as error:
        raise RunError(f"{doing}: {first_line(error).rstrip('.')}") from error
    except OSError as error:
        raise RunError(f"{doing}: {trouble(error)}; {instead}") from error
    except errors.HTTPError as error:  # type: ignore[attr-defined]  # its HTTP client's, while a file is on its way
        raise RunError(
            f"{doing}: the connection failed ({first_line(error).rstrip('.')}); "
            f"fix the network connection, or {instead}"
        ) from error


def _refusal(error: Exception) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return f"the Hub refuses it ({status}): the token is missing, wrong or without that right, or the name is"
    if status == 404:
        return "the Hub knows no such repository or file (404)"
    return f"the Hub answers {status}" if status else first_line(error).rstrip(".")


def trouble(error: BaseException) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answers {error.code}"
    if isinstance(error, urllib.error.URLError) and isinstance(error.reason, BaseException):
        error = error.reason
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, http.client.HTTPException) and not isinstance(error, OSError):
        return f"the answer is broken ({first_line(error).rstrip('.')})"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "no space left on the disk; free some and run the same command again"
    return getattr(error, "strerror", None) or first_line(error).rstrip(".")

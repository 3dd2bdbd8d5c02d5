"""Errors as HTTP tells them: problem details, RFC 9457."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi.responses import JSONResponse

__all__ = ["Problem", "problem_response"]

_MEDIA_TYPE = "application/problem+json"
#: Phrases of RFC 9110 that older versions of Python know by their former names.
_PHRASES = {413: "Content Too Large", 422: "Unprocessable Content"}


class Problem(Exception):  # noqa: N818 - the standard's word
    """A request that is answered with an error.

    Args:
        status: HTTP status code.
        detail: What is wrong, in one sentence.
        hint: What to do about it.
        headers: Further headers of the answer.
    """

    def __init__(
        self, status: int, detail: str, *, hint: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.hint = hint
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """The problem details object; ``hint`` is our extension of it."""
        found: dict[str, Any] = {
            "type": "about:blank",
            "title": _PHRASES.get(self.status) or HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
        }
        return found | ({"hint": self.hint} if self.hint else {})


def problem_response(problem: Problem) -> JSONResponse:
    """The answer to a request that failed."""
    return JSONResponse(
        problem.body(), status_code=problem.status, headers=problem.headers, media_type=_MEDIA_TYPE
    )

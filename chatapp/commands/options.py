"""The options that everything which generates has in common.

No option has a default here: only what was given appears in the namespace, so that a flag can stand
above the environment and the settings file, and what was not given leaves them alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn

from chatapp.chat.errors import ChatappError, UsageError
from chatapp.chat.sampling import MOST, MOST_SEED, PARAMETERS, Parameter

_MODEL_HELP = "catalog id, Hub repo id, folder, .gguf file, or a server's http://host:8000/v1#model"

_SAMPLING = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")


class Parser(argparse.ArgumentParser):
    """argparse, but a wrong call is answered by one line."""

    def error(self, message: str) -> NoReturn:
        """Raise what `main` prints. Raises UsageError, always."""
        raise UsageError(f"{message}; see {self.prog} --help")


def _group(parser: argparse.ArgumentParser, title: str) -> Callable[..., object]:
    """Adds options without defaults."""
    return partial(parser.add_argument_group(title).add_argument, default=argparse.SUPPRESS)


def add_generation_options(parser: argparse.ArgumentParser) -> None:
    add = _group(parser, "model and prompt")
    add("-m", "--model", metavar="REF", help=_MODEL_HELP)
    add("-s", "--system", metavar="TEXT", help="system text, in place of the template's")
    add("--template", metavar="NAME", help="system-prompt template; 'none' adds nothing")
    add("--format", metavar="NAME", help="how turns become text: auto, model, chatml, transcript…")
    add("--think", metavar="on|off", help="whether a model that can do either thinks first")
    add = _group(parser, "sampling")
    for name in _SAMPLING:
        _add_number(add, PARAMETERS[name])
    add("--seed", type=whole("seed", 0), metavar="N", help="same seed, same reply")
    add("--max-tokens", type=whole("max-tokens", 0), metavar="N", help="0: as many as fit")
    add("--stop", action="append", metavar="TEXT", help="end the reply before this text; repeat")
    add = _group(parser, "more sampling")
    for name, parameter in PARAMETERS.items():
        if name not in _SAMPLING:
            _add_number(add, parameter)
    _add_machine(parser)


def add_model_options(parser: argparse.ArgumentParser) -> None:
    _group(parser, "model")("-m", "--model", metavar="REF", help=_MODEL_HELP)
    _add_machine(parser)


def add_subcommand(
    commands: Any, name: str, run: Callable[[argparse.Namespace], int], text: str, about: str
) -> argparse.ArgumentParser:
    """Add a command: its line in the list of commands, and what its own --help says of it."""
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=about)
    parser.set_defaults(run=run)
    return parser


def add_json(parser: argparse.ArgumentParser, text: str = "as one JSON object") -> None:
    parser.add_argument("--json", action="store_true", help=text)


def add_top_logprobs(parser: argparse.ArgumentParser) -> None:
    """Add --top-logprobs, for what writes tokens as JSON."""
    parser.add_argument(
        "--top-logprobs",
        type=whole("top-logprobs", 0),
        default=5,
        metavar="N",
        help="candidates a token in --json (5); as many as the vocabulary has lists all",
    )


def add_resume(parser: argparse.ArgumentParser, latest: str, one: str) -> None:
    """Add -c and --resume, and what they do in words; they have no defaults, like all here."""
    group = parser.add_mutually_exclusive_group()
    add = partial(group.add_argument, default=argparse.SUPPRESS)
    add("-c", "--continue", dest="latest", action="store_true", help=latest)
    add("--resume", metavar="ID", help=one)


def _add_number(add: Callable[..., object], parameter: Parameter) -> None:
    flags = ("-t",) if parameter.name == "temperature" else ()
    option = "--" + parameter.name.replace("_", "-")
    add(*flags, option, type=reader(parameter.parse), metavar="N", help=parameter.text)


def _add_machine(parser: argparse.ArgumentParser) -> None:
    add = _group(parser, "machine")
    add("--runtime", metavar="NAME", help="auto, llama.cpp (for .gguf files) or transformers")
    add("--device", metavar="NAME", help="auto, cpu, cuda, cuda:N or mps")
    add("--dtype", metavar="NAME", help="auto, float32, bfloat16 or float16")
    add("--threads", type=whole("threads", 0), metavar="N", help="CPU threads; 0: as many as cores")
    add(
        "--context-length",
        type=whole("context-length", 0),
        metavar="N",
        help="lower the context below the model's own",
    )
    add("--offline", action="store_true", help="never touch the network")


def flags_given(args: argparse.Namespace) -> dict[str, object]:
    """The options that were on the command line, by their setting's name."""
    return {name: value for name, value in vars(args).items() if name not in ("command", "run")}


def reader(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """For an option's `type`: what the parser raises is said of the option."""

    def read(text: str) -> Any:
        try:
            return parse(text)
        except ChatappError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read


def whole(name: str, least: int) -> Callable[[str], int]:
    """A reader of whole numbers of at least that; `name` is what messages call it."""

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        most = MOST_SEED if name == "seed" else MOST
        if not least <= value <= most:
            bounds = f"of at most {most}" if value > most else f"of at least {least}"
            raise argparse.ArgumentTypeError(
                f"{name} must be a whole number {bounds}, not {text!r}"
            )
        return value

    return read

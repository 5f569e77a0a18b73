"""The options that everything which generates has in common.

No option has a default here: only what was given appears in the namespace, so that a flag can stand
above the environment and the settings file, and what was not given leaves them alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from chatapp.chat.errors import UsageError
from chatapp.chat.sampling import MOST, MOST_SEED, PARAMETERS, Parameter, ParameterError

_MODEL_HELP = "catalog id, Hub repo id, folder, .gguf file, or a server's http://host:8000/v1#model"

_SAMPLING = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")


class Parser(argparse.ArgumentParser):
    """argparse, but a wrong call is answered by one line."""

    def error(self, message: str) -> NoReturn:
        """Raise what `main` prints. Raises UsageError, always."""
        raise UsageError(f"{message}; see {self.prog} --help")


def add_generation_options(parser: argparse.ArgumentParser) -> None:
    before = list(parser._actions)
    add = parser.add_argument_group("model and prompt").add_argument
    add("-m", "--model", metavar="REF", help=_MODEL_HELP)
    add("-s", "--system", metavar="TEXT", help="system text, in place of the template's")
    add("--template", metavar="NAME", help="system-prompt template; 'none' adds nothing")
    add("--format", metavar="NAME", help="how turns become text: auto, model, chatml, transcript…")
    add("--think", metavar="on|off", help="whether a model that can do either thinks first")
    add = parser.add_argument_group("sampling").add_argument
    for name in _SAMPLING:
        _add_number(add, PARAMETERS[name])
    add("--seed", type=whole("seed", 0), metavar="N", help="same seed, same reply")
    add("--max-tokens", type=whole("max-tokens", 0), metavar="N", help="0: as many as fit")
    add("--stop", action="append", metavar="TEXT", help="end the reply before this text; repeat")
    add = parser.add_argument_group("more sampling").add_argument
    for name, parameter in PARAMETERS.items():
        if name not in _SAMPLING:
            _add_number(add, parameter)
    _add_machine(parser)
    _without_defaults(parser, before)


def add_model_options(parser: argparse.ArgumentParser) -> None:
    before = list(parser._actions)
    add = parser.add_argument_group("model").add_argument
    add("-m", "--model", metavar="REF", help=_MODEL_HELP)
    _add_machine(parser)
    _without_defaults(parser, before)


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
    add = parser.add_mutually_exclusive_group().add_argument
    add(
        "-c",
        "--continue",
        dest="latest",
        action="store_true",
        default=argparse.SUPPRESS,
        help=latest,
    )
    add("--resume", metavar="ID", default=argparse.SUPPRESS, help=one)


def _add_number(add: Callable[..., object], parameter: Parameter) -> None:
    flags = ("-t",) if parameter.name == "temperature" else ()
    option = "--" + parameter.name.replace("_", "-")
    reader = _reader(parameter)
    add(*flags, option, dest=parameter.name, type=reader, metavar="N", help=parameter.text)


def _add_machine(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("machine").add_argument
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


def _without_defaults(parser: argparse.ArgumentParser, before: Sequence[argparse.Action]) -> None:
    for action in parser._actions:
        if action not in before:
            action.default = argparse.SUPPRESS


def flags_given(args: argparse.Namespace) -> dict[str, object]:
    """The options that were on the command line, by their setting's name."""
    return {name: value for name, value in vars(args).items() if name not in ("command", "run")}


def _reader(parameter: Parameter) -> Callable[[str], float | int]:
    def read(text: str) -> float | int:
        try:
            return parameter.parse(text)
        except ParameterError as error:
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

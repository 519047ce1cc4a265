"""A user study: `python -m evaluation.study page|serve|analyse`. Each takes --help."""

# ruff: noqa: PLC0415 - a server starts in a moment: what it does not need is not imported

import argparse
import secrets
import sys
from pathlib import Path

from assd.errors import one_sentence


def page(options: argparse.Namespace) -> None:
    """Writes the study's folder and its key."""
    from evaluation.study.edits import named_runs
    from evaluation.study.key import beside
    from evaluation.study.page import write_study
    from evaluation.study.plan import Plan

    names = ("design", "trials", "broken", "repeats", "seed")
    plan = Plan(sheets=options.raters, **{name: getattr(options, name) for name in names})
    runs = named_runs(options.runs)
    key = write_study(runs, options.output, plan, secrets.token_hex(32), options.title, options.post)
    print(f"{len(key.methods)} methods ({', '.join(key.methods)}), {len(key.pairs)} pairs")
    print(f"{len(key.sheets)} sheets of {len(key.sheets[0])} trials: {options.output / 'index.html'}")
    print(f"Keep for the analysis, and publish it nowhere: {beside(options.output, 'key.json')}")


def serve(options: argparse.Namespace) -> None:
    """Serves the folder and collects answers until it is interrupted."""
    from evaluation.study.key import beside
    from evaluation.study.server import make_server

    key = options.key or beside(options.study, "key.json")
    answers = options.answers or beside(options.study, "answers.jsonl")
    server = make_server(options.study, key, answers, options.host, options.port)
    host, port = server.server_address[:2]
    print(f"The study is at http://{host}:{port}/?rater=NAME, its answers go to {answers}. Ctrl-C ends it.", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        print()
    finally:
        server.server_close()


def analyse(options: argparse.Namespace) -> None:
    """Writes tables and a plot, and says what they say."""
    from evaluation.study.analysis import analyse_files
    from evaluation.study.render import write_all

    analysis = analyse_files(options.answers, options.key)
    output = options.output or options.answers[0].resolve().parent / "analysis"
    print(write_all(analysis, output), end="")
    print(f"Tables and plot: {output}")


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m evaluation.study", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="page|serve|analyse")

    command = commands.add_parser("page", help=page.__doc__)
    command.set_defaults(run=page)
    command.add_argument("runs", nargs="+", metavar="[NAME=]RUN", help="run directories, or a sweep's folder")
    command.add_argument("--output", type=Path, default=Path("study"))
    command.add_argument("--design", choices=("pairwise", "best_of"), default="pairwise")
    command.add_argument("--raters", type=int, default=40, help="sheets to make; a later rater takes one again (40)")
    command.add_argument("--trials", type=int, default=24, help="judged trials on a sheet (24)")
    command.add_argument("--broken", type=int, default=3, help="catch trials with a broken clip (3)")
    command.add_argument("--repeats", type=int, default=2, help="trials that come twice, sides swapped (2)")
    command.add_argument("--seed", type=int, default=0, help="of sides and orders (0)")
    command.add_argument("--title", default="Which edit is better?", help="the page's heading")
    command.add_argument("--post", metavar="URL", help="an address that the page posts each answer to")

    command = commands.add_parser("serve", help=serve.__doc__)
    command.set_defaults(run=serve)
    command.add_argument("study", type=Path, help="the folder that `page` wrote")
    command.add_argument("--host", default="127.0.0.1", help="127.0.0.1: this machine only; 0.0.0.0: everyone")
    command.add_argument("--port", type=int, default=8000)
    command.add_argument("--answers", type=Path, help="STUDY-answers.jsonl beside the folder")
    command.add_argument("--key", type=Path, help="STUDY-key.json beside the folder")

    command = commands.add_parser("analyse", help=analyse.__doc__)
    command.set_defaults(run=analyse)
    command.add_argument("answers", type=Path, nargs="+", help="files of answers, or folders of them")
    command.add_argument("--key", type=Path, help="the only *-key.json beside the answers, or one folder up")
    command.add_argument("--output", type=Path, help="a folder; analysis/ beside the answers")
    return parser


@one_sentence()
def main(arguments_given: list[str] | None = None) -> None:
    """The command line."""
    options = arguments().parse_args(sys.argv[1:] if arguments_given is None else arguments_given)
    options.run(options)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Renders chat templates and template snippets with jinja2 and records the results.

Writes tests/data/chat/snippets.json and tests/data/chat/templates.json, which tests/text/chat_template_test.cpp
compares with Mneme's interpreter byte for byte. Needs the Python package jinja2 (3.1).

The environment is the one that Hugging Face transformers renders chat templates in: immutable sandbox,
trim_blocks, lstrip_blocks, loop controls, its own tojson, raise_exception, strftime_now, {% generation %}.

    tools/make_chat_golden.py [--template NAME=FILE ...] [-o FOLDER]

--template adds the template of a model file: a .jinja file, or a tokenizer_config.json. The templates that are
kept in tests/data/chat/models.json (each with its licence) are always rendered.
"""
import argparse
import datetime
import json
import pathlib

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.sandbox

from chat_golden_cases import CONVERSATIONS, OWN_TEMPLATES, SNIPPETS, VARIABLES

NOW = datetime.datetime(2024, 7, 26, 15, 4, 5)


class Generation(jinja2.ext.Extension):
    """{% generation %}...{% endgeneration %}: a call block that prints its body."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_print"), [], [], body).set_lineno(line)

    @jinja2.pass_eval_context
    def _print(self, context, caller):
        return caller()


def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def environment():
    env = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = NOW.strftime
    return env


def render(source, **variables):
    """{"text": ...} or {"error": ...}."""
    try:
        return {"text": environment().from_string(source).render(**variables)}
    except Exception as error:  # whatever jinja2 or Python refuses
        return {"error": f"{type(error).__name__}: {error}"}


def snippets():
    out = []
    for source in SNIPPETS:
        result = render(source, messages=VARIABLES["messages"], tools=VARIABLES["tools"], documents=None,
                        add_generation_prompt=True, bos_token="<s>", eos_token="</s>", **VARIABLES["extra"])
        out.append({"source": source, **result})
    return out


def cases(templates):
    out = []
    for name, template in templates.items():
        for conversation in CONVERSATIONS:
            result = render(template["source"], messages=conversation["messages"], tools=conversation.get("tools"),
                            documents=None, add_generation_prompt=conversation.get("add_generation_prompt", True),
                            bos_token=template["bos_token"], eos_token=template["eos_token"],
                            **conversation.get("variables", {}))
            out.append({"template": name, "conversation": conversation["name"], **result})
    return out


def load_template(argument):
    name, _, path = argument.partition("=")
    text = pathlib.Path(path).read_text(encoding="utf-8")
    if path.endswith(".json"):
        config = json.loads(text)
        def plain(token):
            return token["content"] if isinstance(token, dict) else token or ""
        return name, {"source": config["chat_template"], "bos_token": plain(config.get("bos_token")),
                      "eos_token": plain(config.get("eos_token")), "license": "not recorded"}
    return name, {"source": text, "bos_token": "<s>", "eos_token": "</s>", "license": "not recorded"}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--template", action="append", default=[], metavar="NAME=FILE")
    root = pathlib.Path(__file__).resolve().parent.parent / "tests" / "data" / "chat"
    parser.add_argument("-o", "--output", type=pathlib.Path, default=root)
    options = parser.parse_args()
    templates = dict(OWN_TEMPLATES)
    if (root / "models.json").exists():
        templates |= json.loads((root / "models.json").read_text(encoding="utf-8"))
    templates |= dict(load_template(argument) for argument in options.template)
    options.output.mkdir(parents=True, exist_ok=True)

    def write(name, value):
        text = json.dumps(value, ensure_ascii=False, indent=1) + "\n"
        (options.output / name).write_text(text, encoding="utf-8")

    write("snippets.json", {"jinja2": jinja2.__version__, "messages": VARIABLES["messages"], "tools": VARIABLES["tools"],
                            "extra": VARIABLES["extra"], "snippets": snippets()})
    write("templates.json", {"jinja2": jinja2.__version__, "templates": templates,
                             "conversations": CONVERSATIONS, "cases": cases(templates)})


if __name__ == "__main__":
    main()

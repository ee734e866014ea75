// Chat templates against jinja2: tools/make_chat_golden.py rendered every case with the Python package.
#include "text/chat_template.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "core/fail.h"
#include "core/file.h"

namespace mneme::chat_template_test {
namespace {

OrderedJson golden(const fs::path& path) {
  return parse_ordered_json(read_text_file(path), path.string(), 200);
}

fs::path data(const char* name) {
  return fs::path(MNEME_TEST_DATA) / "chat" / name;
}

/// 2024-07-26 15:04:05, a Friday: the moment that the goldens were made for.
std::tm golden_time() {
  std::tm time{};
  time.tm_year = 124;
  time.tm_mon = 6;
  time.tm_mday = 26;
  time.tm_hour = 15;
  time.tm_min = 4;
  time.tm_sec = 5;
  time.tm_wday = 5;
  time.tm_yday = 207;
  return time;
}

/// The rendered text, or "" and the error's message.
struct Outcome {
  std::string text;
  std::string error;
};

Outcome render(const std::string& source, const OrderedJson& messages, const ChatTemplateInputs& inputs) {
  Outcome out;
  try {
    out.text = ChatTemplate::parse(source).render(messages, inputs);
  } catch (const Error& error) {
    out.error = error.what();
  }
  return out;
}

/// Compares one case with its golden: equal text, or an error on both sides.
void check(const OrderedJson& expected, const Outcome& got, const std::string& name) {
  if (expected.contains("text")) {
    EXPECT_EQ(got.text, expected["text"].get<std::string>()) << name << "\n" << got.error;
    EXPECT_EQ(got.error, "") << name;
  } else {
    EXPECT_NE(got.error, "") << name << "\nrendered: " << got.text
                             << "\nbut jinja2 says: " << expected["error"];
  }
}

TEST(ChatTemplate, SnippetsRenderAsJinja2) {
  const OrderedJson file = golden(data("snippets.json"));
  ChatTemplateInputs inputs;
  inputs.tools = file["tools"];
  inputs.bos_token = "<s>";
  inputs.eos_token = "</s>";
  inputs.variables = file["extra"];
  inputs.now = golden_time();
  ASSERT_GT(file["snippets"].size(), 200U);
  for (const OrderedJson& snippet : file["snippets"]) {
    const auto source = snippet["source"].get<std::string>();
    const Outcome got = render(source, file["messages"], inputs);
    check(snippet, got, source);
  }
}

TEST(ChatTemplate, WhatLiesOutsideTheSubsetIsRefusedByLine) {
  ChatTemplateInputs inputs;
  inputs.variables = {{"d", {{"a", 1}}}, {"words", {"a", "b"}}, {"n", 3}, {"text", "abc"}};
  for (const char* source :
       {"{{ words|batch(2) }}", "{% for x in words recursive %}{% endfor %}", "{{ words|groupby('age') }}",
        "{{ text is filter }}", "{% include 'x' %}", "{% import 'x' as y %}", "{% extends 'x' %}",
        "{% block b %}{% endblock %}", "{% do words.append(1) %}", "{% trans %}x{% endtrans %}",
        "{% autoescape true %}{% endautoescape %}", "{{ words[0, 1] }}", "{{ text.format(**words) }}",
        "{% macro m() %}{{ varargs }}{% endmacro %}", "{{ self.x }}", "{{ '\\N{DASH}' }}", "{{ 0x10 }}",
        "{{ 007 }}", "{{ 99999999999999999999 }}", "{{ text|safe + 'x' }}", "{{ '\\ud800' }}",
        // seen only when it runs
        "{{ d.items }}", "{{ words|map('upper') }}", "{{ '%.2f' % 3.14159 }}", "{{ 3 .real }}",
        "{{ n.bit_length() }}", "{{ text.__class__ }}", "{{ words.append(1) }}", "{{ d.update(d) }}",
        "{{ text.zfill(5) }}", "{{ '{:>5}'.format(1) }}",
        "{% for x in words %}{{ loop.changed(x) }}{% endfor %}", "{{ lipsum() }}", "{{ range(3) }}",
        "{{ 2.5|round(-1) }}", "{{ cycler('a') }}"}) {
    const std::string padded = std::string("line one\n\n") + source;
    try {
      const std::string text = ChatTemplate::parse(padded).render(OrderedJson::array(), inputs);
      ADD_FAILURE() << source << " rendered " << text;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::unsupported) << source << ": " << error.what();
      EXPECT_EQ(std::string(error.what()).find("chat template line 3: "), 0U)
          << source << ": " << error.what();
    }
  }
}

TEST(ChatTemplate, MalformedTemplatesAreCorruptAndNameTheLine) {
  for (const char* source :
       {"{{ n", "{% if n %}", "{% endif %}", "{{ 'abc }}", "{{ (1, 2 }}", "{# open", "{% raw %}", "{{ 1 + }}",
        "{% nope %}", "{% set 1 = 2 %}", "{% break %}", "{{ n ! m }}", "{{ f(a=1, 2) }}", "{{ f(a=1, a=2) }}",
        "{% macro m(a=1, b) %}{% endmacro %}", "{{ '\\x4' }}", "{{ a b }}", "{% for x %}{% endfor %}"}) {
    try {
      ChatTemplate::parse(std::string("\n") + source);
      ADD_FAILURE() << source << " was accepted";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::corrupt) << source << ": " << error.what();
      EXPECT_EQ(std::string(error.what()).find("chat template line 2: "), 0U)
          << source << ": " << error.what();
    }
  }
}

TEST(ChatTemplate, RaisedExceptionCarriesItsMessage) {
  const Outcome got = render("a\n{{ raise_exception('Only ' ~ 2 ~ ' turns') }}", OrderedJson::array(), {});
  EXPECT_EQ(got.error, "chat template line 2: Only 2 turns");
}

TEST(ChatTemplate, HostileTemplatesEndInALimit) {
  ChatTemplateInputs inputs;
  inputs.max_steps = 2'000'000;
  inputs.max_output_bytes = 1 << 20;
  const std::string parens(5000, '('),
      nots =
          [] {
            std::string out;
            for (int i = 0; i < 5000; ++i) out += "not ";
            return out;
          }(),
      ifs =
          [] {
            std::string out;
            for (int i = 0; i < 5000; ++i) out += "{% if 1 %}";
            return out;
          }(),
      sum = [] {
        std::string out = "1";
        for (int i = 0; i < 5000; ++i) out += "+1";
        return out;
      }();
  for (const std::string& source : {
           std::string("{% for i in range(10**9) %}{% endfor %}"),
           std::string("{% for i in range(99999) %}{% for j in range(99999) %}x{% endfor %}{% endfor %}"),
           std::string("{{ 'a' * 10**12 }}"),
           std::string("{{ [0] * 10**9 }}"),
           std::string("{{ 10 ** 100 }}"),
           std::string("{{ 9223372036854775807 + 1 }}"),
           std::string("{{ -9223372036854775807 - 2 }}"),
           std::string("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"),
           std::string("{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x "
                       "%}{% endfor %}{{ ns.x }}"),
           std::string("{% set ns = namespace(x=[]) %}{% for i in range(1000) %}{% set ns.x = [ns.x] %}{% "
                       "endfor %}{{ ns.x }}"),
           std::string("{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] "
                       "%}{% endfor %}{{ ns.x }}"),
           "{{ " + parens + "1" + std::string(5000, ')') + " }}",
           "{{ " + nots + "1 }}",
           ifs,
           "{{ " + sum + " }}",
           std::string("{% for i in range(99999) %}{{ 'xxxxxxxxxxxxxxxxxxxxxxxx' }}{% endfor %}"),
           std::string("{{ ('a' * 1000000)|replace('', 'b' * 1000000) }}"),
           std::string("{{ ('\\n' * 1000000)|indent(4096, blank=true) }}"),
       }) {
    try {
      ChatTemplate::parse(source).render(OrderedJson::array(), inputs);
      ADD_FAILURE() << source.substr(0, 80) << " was rendered";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::limit) << source.substr(0, 80) << ": " << error.what();
    }
  }
}

TEST(ChatTemplate, NamespacesThatReferToEachOtherAreFreed) {
  // Leak checkers see it if they are not.
  const Outcome got = render(
      "{% set a = namespace() %}{% set b = namespace(a=a) %}{% set a.b = b %}{% set a.self = [a, b] %}"
      "{% for i in range(9999) %}{% set a.b = namespace(next=a.b) %}{% endfor %}ok",
      OrderedJson::array(), {});
  EXPECT_EQ(got.text, "ok") << got.error;
}

void check_templates(const OrderedJson& file) {
  for (const OrderedJson& expected : file["cases"]) {
    const auto name = expected["template"].get<std::string>();
    const OrderedJson& model = file["templates"][name];
    const auto conversation =
        std::find_if(file["conversations"].begin(), file["conversations"].end(),
                     [&](const OrderedJson& c) { return c["name"] == expected["conversation"]; });
    ASSERT_NE(conversation, file["conversations"].end());
    ChatTemplateInputs inputs;
    inputs.tools = conversation->value("tools", OrderedJson());
    inputs.add_generation_prompt = conversation->value("add_generation_prompt", true);
    inputs.variables = conversation->value("variables", OrderedJson::object());
    inputs.bos_token = model["bos_token"];
    inputs.eos_token = model["eos_token"];
    inputs.now = golden_time();
    check(expected, render(model["source"], (*conversation)["messages"], inputs),
          name + ": " + expected["conversation"].get<std::string>());
  }
}

TEST(ChatTemplate, ModelTemplatesRenderAsJinja2) {
  const OrderedJson file = golden(data("templates.json"));
  ASSERT_GE(file["cases"].size(), 250U);
  check_templates(file);
}

TEST(ChatTemplate, FurtherModelTemplatesRenderAsJinja2) {
  const char* path = std::getenv("MNEME_CHAT_GOLDEN");
  if (!path)
    GTEST_SKIP()
        << "set MNEME_CHAT_GOLDEN to a templates.json that tools/make_chat_golden.py --template made";
  check_templates(golden(path));
}

}  // namespace
}  // namespace mneme::chat_template_test

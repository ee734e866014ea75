#include "cli/help.h"

#include <fmt/format.h>

#include <algorithm>

namespace mneme::cli {
namespace {

constexpr size_t kWidth = 100;

std::string_view heading(Group group) {
  switch (group) {
    case Group::talk:
      return "Use a model";
    case Group::text:
      return "Text and numbers";
    case Group::measure:
      return "Measure";
    case Group::models:
      return "Models";
    case Group::shell:
      return "Shell";
  }
  return "";
}

// Breaks a text at spaces so that lines end before kWidth; further lines begin at column `indent`.
std::string wrap(const std::string& text, size_t indent) {
  std::string out;
  size_t column = indent;
  for (size_t at = 0; at < text.size();) {
    size_t end = text.find(' ', at);
    if (end == std::string::npos) end = text.size();
    const std::string word = text.substr(at, end - at);
    if (column > indent && column + 1 + word.size() > kWidth) {
      out += "\n" + std::string(indent, ' ');
      column = indent;
    } else if (column > indent) {
      out += ' ';
      ++column;
    }
    out += word;
    column += word.size();
    at = end + 1;
  }
  return out;
}

std::string details(const CLI::Option& option) {
  std::string text;
  const std::string value = option.get_default_str();
  if (!option.get_positional() && !value.empty() && value != "[]" && takes_value(option))
    text = "default " + value;
  if (!option.get_envname().empty()) text += (text.empty() ? "" : ", ") + option.get_envname();
  return text.empty() ? "" : " [" + text + "]";
}

std::string option_line(const CLI::Option& option, bool full) {
  constexpr size_t kColumn = 28;
  std::string line = "  " + option_spelling(option);
  std::string text = option.get_description();
  const auto choices = option_choices(option);
  if (!choices.empty()) text += fmt::format(": {}", fmt::join(choices, ", "));
  if (full) text += details(option);
  line +=
      line.size() + 2 > kColumn ? "\n" + std::string(kColumn, ' ') : std::string(kColumn - line.size(), ' ');
  return line + wrap(text, kColumn) + "\n";
}

std::string usage(const CLI::App& app) {
  std::string line = "Usage: " + app.get_name();
  for (const CLI::Option* option : app.get_options()) {
    if (!option->get_positional()) continue;
    std::string name = option->get_type_name();
    if (name.empty() || name.find(':') != std::string::npos) name = option->get_name(true);
    line += option->get_required() ? " " + name : " [" + name + "]";
  }
  for (const CLI::Option* option : app.get_options())
    if (!option->get_positional() && option->get_required()) line += " " + option_spelling(*option);
  return line + " [options]\n";
}

}  // namespace

std::vector<std::string> option_choices(const CLI::Option& option) {
  // IsMember describes itself as "{a,b,c}" behind the type's name.
  const std::string type = option.get_type_name();
  const size_t open = type.find('{');
  const size_t close = type.rfind('}');
  std::vector<std::string> choices;
  if (open == std::string::npos || close == std::string::npos) return choices;
  for (size_t at = open + 1; at < close;) {
    const size_t end = std::min(type.find(',', at), close);
    choices.push_back(type.substr(at, end - at));
    at = end + 1;
  }
  return choices;
}

std::string option_spelling(const CLI::Option& option) {
  std::string text;
  for (const std::string& name : option.get_snames()) text += (text.empty() ? "-" : ", -") + name;
  for (const std::string& name : option.get_lnames()) text += (text.empty() ? "--" : ", --") + name;
  if (text.empty())
    return option.get_type_name().find(':') == std::string::npos ? option.get_type_name()
                                                                 : option.get_name(true);
  if (!takes_value(option)) return text;
  std::string value = option.get_type_name();
  size_t validator = value.find(':');  // CLI11 appends ":CHECK"; "FILE[:placement]" is a name
  if (validator != std::string::npos && validator > 0 && value[validator - 1] == '[')
    validator = value.find(':', validator + 1);
  value = value.substr(0, validator);
  if (value == "TEXT" && !option_choices(option).empty()) value = "NAME";
  return text + " " + value;
}

std::string command_help(bool full) {
  std::string text = "mneme: a local language-model engine\n\n";
  if (full) {
    text += "Examples:\n";
    for (const Verb& verb : verbs())
      for (size_t i = 0; i < std::min<size_t>(1, verb.examples.size()); ++i)
        text += fmt::format("  {:<58}  {}\n", verb.examples[i].command, verb.examples[i].what);
    text += "\n";
  }
  text += "Usage: mneme VERB [options]\n";
  for (size_t i = 0; i < verbs().size(); ++i) {
    const Verb& verb = verbs()[i];
    if (i == 0 || verbs()[i - 1].group != verb.group) text += fmt::format("\n{}:\n", heading(verb.group));
    text += fmt::format("  {:<12}{}\n", verb.name, verb.summary);
  }
  text +=
      "\n`mneme VERB -h` shows a verb's options in short, `mneme VERB --help` in full; `mneme --version`.\n";
  if (full)
    text +=
        "\nEnvironment: MNEME_HOME (model store and caches), MNEME_ISA (instruction set: portable, avx2, "
        "avx512,\n"
        "avx512-vnni), NO_COLOR, and one variable for each option as its help says.\n"
        "Exit codes: 0 done; 1 failed, with one line on standard error; 2 wrong usage; 130 interrupted.\n";
  return text;
}

std::string verb_help(const Verb& verb, const CLI::App& app, bool full) {
  std::string text = fmt::format("mneme {}: {}\n\n", verb.full_name(), verb.summary);
  if (full && !verb.examples.empty()) {
    text += "Examples:\n";
    for (const Example& example : verb.examples)
      text += fmt::format("  {}\n      {}\n", example.command, example.what);
    text += "\n";
  }
  text += usage(app);
  if (const auto parts = sub_verbs(verb.full_name()); !parts.empty()) {
    text += "\nWhat it can do:\n";
    for (const Verb* part : parts) text += fmt::format("  {:<12}{}\n", part->name, part->summary);
    text += fmt::format("\n`mneme {} WHAT -h` shows the options of each.\n", verb.full_name());
  }
  std::vector<std::string> groups;
  for (const CLI::Option* option : app.get_options())
    if (const std::string& group = option->get_group();
        !group.empty() && std::find(groups.begin(), groups.end(), group) == groups.end())
      groups.push_back(group);
  // The verb's own options first, what all verbs share last.
  std::stable_partition(groups.begin(), groups.end(),
                        [](const std::string& g) { return g != "Common" && g != "Model"; });
  for (const std::string& group : groups) {
    text += fmt::format("\n{}:\n", group);
    for (const CLI::Option* option : app.get_options())
      if (option->get_group() == group) text += option_line(*option, full);
  }
  return text;
}

}  // namespace mneme::cli

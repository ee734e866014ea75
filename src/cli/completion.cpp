// `mneme completion bash|zsh|fish`: a completion script made from the registered verbs and their parsers, so
// that it always knows what this binary knows. Names of stored models are asked for when the user presses
// Tab (`mneme completion --models`).
#include <fmt/format.h>

#include <memory>

#include "cli/help.h"
#include "cli/options.h"
#include "cli/store.h"
#include "cli/terminal.h"
#include "cli/verb.h"

namespace mneme::cli::completion_verb {
namespace {

struct Options {
  CommonOptions common;
  std::string shell;
  bool models = false;
};

/// What completion knows about one option.
struct Described {
  std::vector<std::string> names;    // "-q", "--quiet"
  std::vector<std::string> choices;  // of its value
  std::string text;
  bool takes_value = false;
};

std::vector<Described> describe(const Verb& verb) {
  const Parser parser = make_parser(verb);
  std::vector<Described> all;
  for (const CLI::Option* option : parser.app->get_options()) {
    if (option->get_positional() || option->get_group().empty()) continue;
    Described one{{}, option_choices(*option), option->get_description(), takes_value(*option)};
    for (const std::string& name : option->get_snames()) one.names.push_back("-" + name);
    for (const std::string& name : option->get_lnames()) one.names.push_back("--" + name);
    all.push_back(std::move(one));
  }
  return all;
}

/// Values of the first positional argument if it is one of a fixed set.
std::vector<std::string> positional_choices(const Verb& verb) {
  const Parser parser = make_parser(verb);
  for (const CLI::Option* option : parser.app->get_options())
    if (option->get_positional()) return option_choices(*option);
  return {};
}

std::string shell_quoted(std::string_view text) {
  std::string out = "'";
  for (const char c : text) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return out + "'";
}

std::string verb_names() {
  std::string names;
  for (const Verb& verb : verbs()) names += (names.empty() ? "" : " ") + verb.name;
  return names;
}

std::string bash_script() {
  std::string options, values, positionals;
  for (const Verb& verb : verbs()) {
    std::string names;
    for (const Described& option : describe(verb)) {
      for (const std::string& name : option.names) names += (names.empty() ? "" : " ") + name;
      for (const std::string& name : option.names) {
        if (!option.choices.empty())
          values +=
              fmt::format("    '{} {}') words='{}' ;;\n", verb.name, name, fmt::join(option.choices, " "));
        else if (option.takes_value)
          values += fmt::format("    '{} {}') files=1 ;;\n", verb.name, name);
      }
    }
    options += fmt::format("      {}) words='{}' ;;\n", verb.name, names);
    if (const auto choices = positional_choices(verb); !choices.empty())
      positionals += fmt::format("      {}) words='{}'; files= ;;\n", verb.name, fmt::join(choices, " "));
  }
  return fmt::format(R"sh(# bash completion of mneme. To use it: source <(mneme completion bash)
_mneme() {{
  local word="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD-1]}}" verb="${{COMP_WORDS[1]}}"
  local words='' files='' IFS=$' \t\n'
  COMPREPLY=()
  if [[ $COMP_CWORD -eq 1 ]]; then
    COMPREPLY=($(compgen -W '{} help --help --version' -- "$word"))
    return
  fi
  case "$verb $before" in
{}    *) ;;
  esac
  if [[ -z $words && -z $files && $word == -* ]]; then
    case "$verb" in
{}    esac
  elif [[ -z $words && -z $files ]]; then
    files=1
    case "$verb" in
{}      *) words="$(mneme completion --models 2>/dev/null)"; IFS=$'\n' ;;
    esac
  fi
  COMPREPLY=($(compgen -W "$words" -- "$word"))
  if [[ -n $files ]]; then
    local IFS=$'\n'
    COMPREPLY+=($(compgen -f -- "$word"))
  fi
}}
complete -o filenames -F _mneme mneme
)sh",
                     verb_names(), values, options, positionals);
}

// Inside an _arguments specification, ':' and brackets have a meaning.
std::string zsh_text(std::string_view text) {
  std::string out;
  for (const char c : text)
    out += c == ':' || c == '[' || c == ']' ? std::string("\\") + c : std::string(1, c);
  return out;
}

std::string zsh_script() {
  std::string summaries, cases;
  for (const Verb& verb : verbs()) {
    summaries += fmt::format("    {}\n", shell_quoted(verb.name + ":" + zsh_text(verb.summary)));
    cases += fmt::format("    {})\n      _arguments", verb.name);
    for (const Described& option : describe(verb)) {
      for (const std::string& name : option.names) {
        std::string spec = name + "[" + zsh_text(option.text) + "]";
        if (!option.choices.empty())
          spec += fmt::format(":value:({})", fmt::join(option.choices, " "));
        else if (option.takes_value)
          spec += ":value:_files";
        cases += " \\\n        " + shell_quoted(spec);
      }
    }
    if (const auto choices = positional_choices(verb); !choices.empty())
      cases += " \\\n        " + shell_quoted(fmt::format("1:value:({})", fmt::join(choices, " ")));
    else
      cases += " \\\n        '1:model:_mneme_models' '*:file:_files'";
    cases += " ;;\n";
  }
  return fmt::format(R"sh(#compdef mneme
# zsh completion of mneme. To use it: source <(mneme completion zsh)
_mneme_models() {{
  local -a models
  models=("${{(@f)$(mneme completion --models 2>/dev/null)}}")
  compadd -a models
  _files
}}
_mneme() {{
  local -a verbs
  verbs=(
{}  )
  if (( CURRENT == 2 )); then
    _describe 'verb' verbs
    return
  fi
  local verb=$words[2]
  shift words
  (( CURRENT-- ))
  case $verb in
{}  esac
}}
compdef _mneme mneme
)sh",
                     summaries, cases);
}

std::string fish_script() {
  std::string out =
      "# fish completion of mneme. To use it: mneme completion fish | source\n"
      "complete -c mneme -n __fish_use_subcommand -f\n";
  for (const Verb& verb : verbs()) {
    out += fmt::format("complete -c mneme -n __fish_use_subcommand -f -a {} -d {}\n", verb.name,
                       shell_quoted(verb.summary));
    const std::string only = fmt::format("-n '__fish_seen_subcommand_from {}'", verb.name);
    for (const Described& option : describe(verb)) {
      std::string line = "complete -c mneme " + only;
      for (const std::string& name : option.names)
        line += name.starts_with("--") ? " -l " + name.substr(2) : " -s " + name.substr(1);
      if (!option.choices.empty())
        line += fmt::format(" -x -a {}", shell_quoted(fmt::format("{}", fmt::join(option.choices, " "))));
      else if (option.takes_value)
        line += " -r";
      out += line + " -d " + shell_quoted(option.text) + "\n";
    }
    if (const auto choices = positional_choices(verb); !choices.empty())
      out += fmt::format("complete -c mneme {} -f -a {}\n", only,
                         shell_quoted(fmt::format("{}", fmt::join(choices, " "))));
    else
      out += fmt::format("complete -c mneme {} -a '(mneme completion --models 2>/dev/null)'\n", only);
  }
  return out;
}

int run(const Options& options) {
  if (options.models) {
    for (const StoredModel& model : stored_models()) print(model.name + "\n");
    return kDone;
  }
  if (options.shell.empty()) throw UsageError("which shell? bash, zsh or fish");
  const std::string script = options.shell == "bash"  ? bash_script()
                             : options.shell == "zsh" ? zsh_script()
                                                      : fish_script();
  if (options.common.json) {
    print_json({{"shell", options.shell}, {"script", script}});
  } else {
    print(script);
  }
  return kDone;
}

const VerbRegistration registration(
    {.name = "completion",
     .summary = "Print a completion script for bash, zsh or fish",
     .group = Group::shell,
     .examples = {{"source <(mneme completion bash)", "Tab completes verbs, options and model names"},
                  {"mneme completion fish > ~/.config/fish/completions/mneme.fish", "for every new fish"}},
     .setup = [](CLI::App& app) -> Action {
       auto options = std::make_shared<Options>();
       app.add_option("shell", options->shell, "The shell")->check(CLI::IsMember({"bash", "zsh", "fish"}));
       app.add_flag("--models", options->models, "")->group("");
       add_common_options(app, options->common);
       return [options] { return run(*options); };
     }});

}  // namespace
}  // namespace mneme::cli::completion_verb

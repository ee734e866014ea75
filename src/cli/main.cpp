// The mneme command: finds the verb, parses its options, runs it, and turns every failure into one line on
// stderr and an exit code. What verbs there are, main does not know: see verb.h.
#include <fmt/format.h>

#include <cstdio>
#include <exception>
#include <new>
#include <span>
#include <string>
#include <vector>

#include "cli/help.h"
#include "cli/signals.h"
#include "cli/suggest.h"
#include "cli/terminal.h"
#include "cli/verb.h"
#include "mneme/error.h"
#include "mneme/version.h"

namespace mneme::cli {
namespace {

int complain(std::string_view who, std::string_view message, int code) {
  fmt::print(stderr, "{}: error: {}\n", who, one_line(message));
  return code;
}

// CLI11 names what it did not expect, but not what was meant.
std::string unknown_option(const CLI::App& app) {
  const std::vector<std::string> rest = app.remaining();
  const std::string word = rest.empty() ? "" : rest.front().substr(0, rest.front().find('='));
  if (!word.starts_with('-'))
    return fmt::format("unexpected argument \"{}\"", rest.empty() ? "" : rest.front());
  std::vector<std::string> names;
  for (const CLI::Option* option : app.get_options())
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  return fmt::format("unknown option {}{}", word, did_you_mean(word, names));
}

// A bad value may come from an environment variable that the user has forgotten.
std::string with_source(const CLI::App& app, const std::string& message) {
  for (const CLI::Option* option : app.get_options()) {
    const std::string& variable = option->get_envname();
    if (variable.empty() || std::getenv(variable.c_str()) == nullptr) continue;
    if (message.starts_with(option->get_name() + ":") || message.find(option->get_name() + " ") == 0)
      return fmt::format("{} ({} is set to \"{}\")", message, variable, std::getenv(variable.c_str()));
  }
  return message;
}

int run_verb(const Verb& verb, std::vector<std::string> arguments) {
  const std::string who = "mneme " + verb.full_name();
  const Parser parser = make_parser(verb);
  const auto misused = [&](std::string message) {
    return complain(who, message + "; see " + who + " -h", kUsage);
  };
  try {
    std::reverse(arguments.begin(), arguments.end());  // as CLI11 wants them
    parser.app->parse(std::move(arguments));
  } catch (const CLI::CallForHelp&) {
    print(verb_help(verb, *parser.app, false));
    return kDone;
  } catch (const CLI::CallForAllHelp&) {
    print(verb_help(verb, *parser.app, true));
    return kDone;
  } catch (const CLI::ExtrasError&) {
    return misused(unknown_option(*parser.app));
  } catch (const CLI::ParseError& error) {
    return misused(with_source(*parser.app, error.what()));
  }
  try {
    return parser.action();
  } catch (const UsageError& error) {
    return misused(error.what());
  }
}

// `mneme memory rows ...`: the verb itself, or the sub-verb that its first word names.
int run_verb_or_part(const Verb& verb, std::vector<std::string> arguments) {
  const auto parts = sub_verbs(verb.name);
  if (parts.empty() || arguments.empty() || arguments.front().starts_with('-'))
    return run_verb(verb, std::move(arguments));
  const std::string name = arguments.front();
  arguments.erase(arguments.begin());
  std::vector<std::string> names;
  for (const Verb* part : parts) {
    if (part->name == name) return run_verb(*part, std::move(arguments));
    names.push_back(part->name);
  }
  return complain("mneme " + verb.name,
                  fmt::format("unknown verb \"{} {}\"{} (`mneme {} -h` lists them)", verb.name, name,
                              did_you_mean(name, names), verb.name),
                  kUsage);
}

int dispatch(std::vector<std::string> arguments) {
  if (arguments.empty()) {
    fmt::print(stderr, "{}", command_help(false));
    return kUsage;
  }
  std::string name = arguments.front();
  arguments.erase(arguments.begin());
  if (name == "--version" || name == "-V") {
    print(fmt::format("mneme {}\n", kVersion));
    return kDone;
  }
  if (name == "help" && !arguments.empty()) {
    name = arguments.front();
    arguments.erase(arguments.begin());
    arguments.emplace_back("--help");
  } else if (name == "-h" || name == "--help" || name == "help") {
    print(command_help(name != "-h"));
    return kDone;
  }
  if (const Verb* verb = find_verb(name)) return run_verb_or_part(*verb, std::move(arguments));
  std::vector<std::string> names{"help", "--help", "--version"};
  for (const Verb& verb : verbs()) names.push_back(verb.name);
  return complain("mneme",
                  fmt::format("unknown {} \"{}\"{} (`mneme -h` lists the verbs)",
                              name.starts_with('-') ? "option" : "verb", name, did_you_mean(name, names)),
                  kUsage);
}

int guarded(int argc, char** argv) {
  try {
    const std::span<char*> words(argv, static_cast<size_t>(argc));
    const int code = dispatch({words.begin() + (argc > 0 ? 1 : 0), words.end()});
    flush_output();
    return code;
  } catch (const Error& error) {
    if (error.code() == ErrorCode::cancelled) return complain("mneme", "interrupted", kInterrupted);
    return complain("mneme", error.what(), kFailed);
  } catch (const std::bad_alloc&) {
    return complain(
        "mneme",
        "out of memory; use a smaller model, a shorter --ctx or a smaller --kv, or close other programs",
        kFailed);
  } catch (const std::exception& error) {
    return complain("mneme", fmt::format("{} (this is a bug in Mneme)", error.what()), kFailed);
  }
}

}  // namespace
}  // namespace mneme::cli

int main(int argc, char** argv) {
  mneme::cli::install_signal_handlers();
  return mneme::cli::guarded(argc, argv);
}

// How a verb of the command registers itself. A verb is one file, in an anonymous namespace within one of its
// own (mneme::cli::tokenize_verb for tokenize.cpp: files are compiled in groups, and every verb has its
// Options and its run), that ends with
//
//   const VerbRegistration registration({.name = "tokenize", .summary = "...", .group = Group::text,
//                                        .examples = {{"mneme tokenize MODEL 'Hello'", "ids and tokens"}},
//                                        .setup = [](CLI::App& app) {
//                                          auto options = std::make_shared<Options>();
//                                          add_common_options(app, options->common);
//                                          app.add_option("text", options->text, "...")->required();
//                                          return [options] { return run(*options); };
//                                        }});
//
// A verb may have sub-verbs (`mneme memory rows`): each is a file of its own that names its `parent`; the
// parent offers their names as its first word.
//
// main.cpp, the help and the shell completions know verbs only through this registry. Every option that has a
// long name can also be set by an environment variable, MNEME_ and the name in capitals: see
// bind_environment().
#pragma once
#include <CLI/CLI.hpp>
#include <functional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace mneme::cli {

enum ExitCode : int { kDone = 0, kFailed = 1, kUsage = 2, kInterrupted = 130 };

/// Headings of `mneme --help`, in its order.
enum class Group { talk, text, measure, models, shell };

struct Example {
  std::string command;
  std::string what;
};

/// Runs a parsed verb; returns the exit code. Throws UsageError or mneme::Error.
using Action = std::function<int()>;

struct Verb {
  std::string name;
  std::string summary;  // one line, no full stop
  Group group = Group::shell;
  std::vector<Example> examples;
  std::string parent = {};  // of a sub-verb: the verb that it belongs to
  /// Adds the options to the verb's parser and returns what to do once they are parsed.
  std::function<Action(CLI::App&)> setup;

  /// As people type it: "tokenize", "memory rows".
  std::string full_name() const { return parent.empty() ? name : parent + " " + name; }
};

/// Wrong usage that the parser cannot see. Ends the program with exit code 2.
class UsageError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

struct VerbRegistration {
  explicit VerbRegistration(Verb verb);
};

/// All verbs without sub-verbs, by group and then by name.
const std::vector<Verb>& verbs();
/// The sub-verbs of a verb, by name; empty for most.
std::vector<const Verb*> sub_verbs(std::string_view parent);
/// The verb of that name or nullptr.
const Verb* find_verb(std::string_view name);

/// A parser that is set up for `verb`, with its action.
struct Parser {
  std::unique_ptr<CLI::App> app;
  Action action;
};
Parser make_parser(const Verb& verb);

/// Gives every long option of `app` an environment variable: --kv is MNEME_KV. What is input rather than
/// habit (--prompt, --ids, --output and the like) is left out.
void bind_environment(CLI::App& app);

}  // namespace mneme::cli

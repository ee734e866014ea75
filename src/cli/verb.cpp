#include "cli/verb.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <memory>
#include <tuple>
#include <utility>

namespace mneme::cli {
namespace {

std::vector<Verb>& registry() {
  static std::vector<Verb> verbs;
  return verbs;
}

std::vector<Verb>& sub_registry() {
  static std::vector<Verb> verbs;
  return verbs;
}

// Options that say what to do now, not how the user likes it: a forgotten variable must not change them.
constexpr std::array<std::string_view, 27> kInputs = {
    "help", "version", "prompt",  "ids",    "text",   "all",       "model",   "stop",       "output",
    "gen",  "depth",   "force",   "config", "plot",   "answers",   "session", "steps",      "resume",
    "out",  "recipe",  "restart", "file",   "raster", "histogram", "layer",   "projection", "nir"};

}  // namespace

VerbRegistration::VerbRegistration(Verb verb) {
  (verb.parent.empty() ? registry() : sub_registry()).push_back(std::move(verb));
}

const std::vector<Verb>& verbs() {
  static const bool sorted = [] {
    std::sort(registry().begin(), registry().end(), [](const Verb& a, const Verb& b) {
      return std::tie(a.group, a.name) < std::tie(b.group, b.name);
    });
    return true;
  }();
  (void)sorted;
  return registry();
}

std::vector<const Verb*> sub_verbs(std::string_view parent) {
  std::vector<const Verb*> found;
  for (const Verb& verb : sub_registry())
    if (verb.parent == parent) found.push_back(&verb);
  std::sort(found.begin(), found.end(), [](const Verb* a, const Verb* b) { return a->name < b->name; });
  return found;
}

const Verb* find_verb(std::string_view name) {
  for (const Verb& verb : verbs())
    if (verb.name == name) return &verb;
  return nullptr;
}

Parser make_parser(const Verb& verb) {
  Parser parser;
  parser.app = std::make_unique<CLI::App>(verb.summary, "mneme " + verb.full_name());
  CLI::App& app = *parser.app;
  app.set_help_flag("-h", "Show the options in short");
  app.set_help_all_flag("--help", "Show examples, defaults and environment variables");
  app.option_defaults()->always_capture_default();
  parser.action = verb.setup(app);
  bind_environment(app);
  return parser;
}

void bind_environment(CLI::App& app) {
  for (CLI::Option* option : app.get_options()) {
    if (!option->get_envname().empty() || option->get_lnames().empty()) continue;
    const std::string& name = option->get_lnames().front();
    if (std::find(kInputs.begin(), kInputs.end(), name) != kInputs.end()) continue;
    std::string variable = "MNEME_";
    for (const char c : name)
      variable += c == '-' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
    option->envname(variable);
  }
}

}  // namespace mneme::cli

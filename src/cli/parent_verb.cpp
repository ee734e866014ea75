#include "cli/parent_verb.h"

#include <fmt/format.h>

#include <cctype>
#include <memory>
#include <vector>

#include "cli/options.h"

namespace mneme::cli {

Verb parent_verb(Verb verb, std::string word, std::string question) {
  struct Options {
    CommonOptions common;
    std::string part;
  };
  verb.setup = [name = verb.name, word = std::move(word),
                question = std::move(question)](CLI::App& app) -> Action {
    std::vector<std::string> parts;
    for (const Verb* part : sub_verbs(name)) parts.push_back(part->name);
    std::string type = word;
    for (char& c : type) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
    auto options = std::make_shared<Options>();
    app.add_option(word, options->part, question)->type_name(type)->check(CLI::IsMember(parts));
    add_common_options(app, options->common);
    return [options, parts]() -> int { throw UsageError(fmt::format("what? {}", fmt::join(parts, ", "))); };
  };
  return verb;
}

}  // namespace mneme::cli

// The help texts, made from the registered verbs and their parsers, so that they cannot go stale.
#pragma once
#include <string>

#include "cli/verb.h"

namespace mneme::cli {

/// What `mneme`, `mneme -h` and `mneme --help` show.
std::string command_help(bool full);
/// `full` false: usage and options. True: examples first, then options by group with default and environment
/// variable.
std::string verb_help(const Verb& verb, const CLI::App& app, bool full);
/// Names and values of an option, e.g. "-n, --tokens N".
std::string option_spelling(const CLI::Option& option);
/// False for a flag.
inline bool takes_value(const CLI::Option& option) {
  return option.get_items_expected_max() > 0;
}
/// The values that an option accepts if they are a fixed set ("f16", "int8", "f32"), otherwise empty.
std::vector<std::string> option_choices(const CLI::Option& option);

}  // namespace mneme::cli

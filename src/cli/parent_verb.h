// A verb whose sub-verbs do the work (`mneme memory rows`): each of them is a file of its own.
#pragma once
#include <string>

#include "cli/verb.h"

namespace mneme::cli {

/// Completes such a verb: its first word, `word` ("what"), is one of the names of its sub-verbs, and by
/// itself the verb only says which there are. `question` describes that word in the help.
Verb parent_verb(Verb verb, std::string word, std::string question);

}  // namespace mneme::cli

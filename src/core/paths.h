// Where Mneme keeps things on this user's machine, by the XDG Base Directory specification.
//
//   what                                  $MNEME_HOME set    otherwise
//   data   models, memory packs           $MNEME_HOME        $XDG_DATA_HOME/mneme   or ~/.local/share/mneme
//   cache  may be deleted at any time     $MNEME_HOME/cache  $XDG_CACHE_HOME/mneme  or ~/.cache/mneme
//   state  history, last measurements     $MNEME_HOME/state  $XDG_STATE_HOME/mneme  or ~/.local/state/mneme
//
// A relative path in an XDG variable is ignored, as the specification asks; a relative MNEME_HOME counts from
// the working folder. The environment is read at every call; nothing is created. Throws Error(not_found) if
// none of MNEME_HOME, the XDG variable, HOME and the user database names a folder.
#pragma once
#include <filesystem>

namespace mneme {

std::filesystem::path data_folder();
/// Where the store keeps models: data_folder()/models.
std::filesystem::path models_folder();
std::filesystem::path cache_folder();
std::filesystem::path state_folder();

/// Creates a folder and its parents, readable by the user alone where it creates them, and returns it. Throws
/// Error(io) with the system's reason.
std::filesystem::path ensure_folder(std::filesystem::path folder);

}  // namespace mneme

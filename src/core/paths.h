// Where Mneme keeps what outlives a run: the user's model store and the cache of measured facts.
//
//   MNEME_HOME set:  $MNEME_HOME/models      $MNEME_HOME/cache
//   otherwise:       $XDG_DATA_HOME/mneme/models (~/.local/share/mneme/models)
//                    $XDG_CACHE_HOME/mneme       (~/.cache/mneme)
#pragma once
#include <filesystem>

namespace mneme {

/// The folder of the store; its models lie in models_folder(). Neither is created. Throws Error(not_found) if
/// neither MNEME_HOME, the XDG variable nor HOME is set.
std::filesystem::path data_folder();
std::filesystem::path models_folder();
/// Facts that can be measured or computed again; safe to delete. Not created. Throws as data_folder().
std::filesystem::path cache_folder();

}  // namespace mneme

// What is wrong with the name of a file to write, said before the work that fills it.
#pragma once
#include <string>
#include <string_view>

namespace mneme::cli {

/// Throws Error(not_found) if the folder of the file does not exist, Error(io) if the name is a folder's. An
/// empty name is an option that was not given.
void check_output_file(const std::string& path);
/// The same for a picture. Throws UsageError, too, which names `option`, for another ending than .svg and
/// .png.
void check_picture_file(std::string_view option, const std::string& path);

}  // namespace mneme::cli

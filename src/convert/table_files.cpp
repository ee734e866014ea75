#include "convert/table_files.h"

#include <algorithm>
#include <map>

#include "convert/export_hf.h"
#include "core/fail.h"

namespace mneme {
namespace {

/// The folder that the names in a checkpoint's config are relative to.
fs::path home_of(const Checkpoint& in) {
  std::error_code error;
  return fs::is_directory(in.path(), error) ? in.path() : in.path().parent_path();
}

void take_along(const fs::path& from, const fs::path& to) {
  std::error_code error;
  if (fs::equivalent(from, to, error)) return;
  const MappedFile file(from, LoadMode::mmap);
  check_space(to, file.size());
  AtomicFile out(to);
  constexpr uint64_t kChunk = uint64_t{4} << 20;
  for (uint64_t at = 0; at < file.size(); at += kChunk) {
    file.check_not_truncated();
    out.write(file.bytes().subspan(at, std::min(kChunk, file.size() - at)));
  }
  out.commit();
}

}  // namespace

ModelConfig config_seen_from(const Checkpoint& in, const fs::path& folder) {
  ModelConfig config = in.config();
  const fs::path here = home_of(in);
  const fs::path there = fs::absolute(folder).lexically_normal();
  for (auto& [name, table] : config.tables)
    if (!table.file.empty() && fs::path(table.file).is_relative())
      table.file = fs::proximate(fs::absolute(here / table.file).lexically_normal(), there).generic_string();
  return config;
}

ModelConfig copy_tables(const Checkpoint& in, const fs::path& folder) {
  ModelConfig config = in.config();
  std::map<std::string, std::string> taken;  // name of a copy -> the table
  std::vector<std::pair<fs::path, fs::path>> copies;
  for (auto& [name, table] : config.tables) {
    if (table.file.empty()) continue;
    const fs::path from = home_of(in) / table.file;
    std::error_code error;
    require(
        !fs::is_directory(from, error) && from.extension() != ".json", ErrorCode::invalid_argument,
        "the rows of the table \"{}\" are not in one file but in what {} says; they are not copied, leave "
        "them where they are",
        name, from.string());
    require(fs::is_regular_file(from, error), ErrorCode::not_found,
            "{}: the file of the table \"{}\" is not there", from.string(), name);
    const std::string file = from.filename().string();
    const auto [at, unused] = taken.emplace(file, name);
    require(unused, ErrorCode::invalid_argument,
            "the tables \"{}\" and \"{}\" both have a file {}; one would replace the other", at->second, name,
            file);
    copies.emplace_back(from, folder / file);
    table.file = file;
  }
  for (const auto& [from, to] : copies) take_along(from, to);
  return config;
}

}  // namespace mneme

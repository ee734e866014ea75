#include "files/shard_index.h"

#include <set>

#include "core/fail.h"
#include "core/json.h"
#include "files/printable.h"

namespace mneme {

ShardIndex read_shard_index(const fs::path& path) {
  const Json index = parse_json(read_text_file(path), path.string(), 8);
  require(index.is_object() && index.contains("weight_map") && index["weight_map"].is_object() &&
              !index["weight_map"].empty(),
          ErrorCode::corrupt, "{}: weight_map must be an object that names the file of each tensor",
          path.string());
  ShardIndex out;
  for (const auto& [tensor, file] : index["weight_map"].items()) {
    require(file.is_string(), ErrorCode::corrupt, "{}: weight_map[\"{}\"] must be a file name", path.string(),
            printable(tensor));
    const auto& name = file.get_ref<const std::string&>();
    require(!name.empty() && name != "." && name != ".." && name.find('/') == std::string::npos &&
                name.find('\0') == std::string::npos,
            ErrorCode::corrupt,
            "{}: weight_map[\"{}\"] is \"{}\"; it must be the name of a file in the same folder",
            path.string(), printable(tensor), printable(name));
    out.emplace(tensor, name);
  }
  return out;
}

TensorStore open_shards(const fs::path& index_path, const ShardIndex& index, LoadMode mode) {
  const fs::path folder = index_path.parent_path();
  std::set<std::string> shards;
  for (const auto& [tensor, file] : index) shards.insert(file);
  TensorStore store;
  for (const auto& shard : shards) {
    require(fs::exists(folder / shard), ErrorCode::not_found, "{} is missing: {} names it as a shard",
            (folder / shard).string(), index_path.string());
    store.add_file(folder / shard, mode);
  }
  return store;
}

void check_shards(const fs::path& index_path, const ShardIndex& index, const TensorStore& store) {
  for (const auto& [tensor, file] : index)
    require(store.find(tensor) != nullptr, ErrorCode::mismatch,
            "{} places tensor \"{}\" in {}, but it is not there", index_path.string(), printable(tensor),
            printable(file));
  for (const auto& tensor : store.tensors())
    require(index.contains(tensor.name), ErrorCode::mismatch,
            "{} does not list tensor \"{}\", which a shard holds", index_path.string(),
            printable(tensor.name));
}

}  // namespace mneme

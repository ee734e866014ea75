#include "train/convert/state.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "core/fail.h"
#include "files/safetensors.h"

namespace mneme::train {
namespace {

DType dtype_of(const Tensor& tensor) {
  if (tensor.scalar_type() == at::kFloat) return DType::f32;
  if (tensor.scalar_type() == at::kInt) return DType::i32;
  if (tensor.scalar_type() == at::kLong) return DType::i64;
  fail(ErrorCode::internal, "a tensor of the conversion's state has an unknown type");
}

at::ScalarType scalar_of(DType type, const std::string& name) {
  if (type == DType::f32) return at::kFloat;
  if (type == DType::i32) return at::kInt;
  if (type == DType::i64) return at::kLong;
  fail(ErrorCode::corrupt, "saved tensor {} has a type that no conversion writes", name);
}

void save_text(const fs::path& path, const std::string& text) {
  AtomicFile file(path);
  file.write(text);
  file.commit();
}

}  // namespace

void merge(NamedTensors& into, const NamedTensors& from, const std::string& prefix) {
  for (const auto& [name, tensor] : from) into.insert_or_assign(prefix + name, tensor);
}

NamedTensors below(const NamedTensors& all, const std::string& prefix) {
  NamedTensors out;
  for (const auto& [name, tensor] : all)
    if (name.starts_with(prefix)) out.emplace(name.substr(prefix.size()), tensor);
  return out;
}

void write_tensors(const fs::path& path, const NamedTensors& tensors) {
  std::vector<SafetensorToWrite> out;
  for (const auto& [name, tensor] : tensors) {
    const Tensor dense = tensor.detach().to(at::kCPU).contiguous();
    TensorInfo info{name, dtype_of(dense), {}, static_cast<uint64_t>(dense.nbytes())};
    for (const int64_t size : dense.sizes()) info.shape.push_back(static_cast<uint64_t>(size));
    out.push_back({info, [dense](AtomicFile& file) {
                     file.write(Bytes{static_cast<const std::byte*>(dense.data_ptr()), dense.nbytes()});
                   }});
  }
  write_safetensors(path, out);
}

NamedTensors read_tensors(const fs::path& path) {
  const auto source = open_safetensors(path);
  NamedTensors out;
  for (const TensorInfo& info : source->tensors()) {
    const Tensor tensor = at::empty(std::vector<int64_t>(info.shape.begin(), info.shape.end()),
                                    scalar_of(info.type, info.name));
    const Bytes bytes = source->data(info);
    require(bytes.size() == tensor.nbytes(), ErrorCode::corrupt,
            "{}: tensor {} has another size than its shape", path.string(), info.name);
    if (!bytes.empty()) std::memcpy(tensor.data_ptr(), bytes.data(), bytes.size());
    out.emplace(info.name, tensor);
  }
  return out;
}

StateFolder::StateFolder(const fs::path& out, std::vector<std::string> recipe, std::string original)
    : recipe_(std::move(recipe)), original_(std::move(original)) {
  folder_ = out.has_filename() ? out : out.parent_path();
  folder_ += ".convert";
  std::error_code error;
  fs::create_directories(folder_, error);
  require(fs::is_directory(folder_), ErrorCode::io, "cannot create the folder {}: {}", folder_.string(),
          error ? error.message() : "a file of that name exists");
  lock_ = ::open((folder_ / "lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  require(lock_ >= 0, ErrorCode::io, "cannot write in {}: {}", folder_.string(), std::strerror(errno));
  if (::flock(lock_, LOCK_EX | LOCK_NB) != 0) {
    ::close(lock_);
    fail(ErrorCode::limit, "another process is converting into {}; wait for it or name another output",
         out.string());
  }
}

StateFolder::~StateFolder() {
  std::error_code error;
  if (!fs::exists(folder_ / "state.json", error) && !fs::exists(folder_ / "shards", error)) remove();
  if (lock_ >= 0) ::close(lock_);
}

void StateFolder::clear() {
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder_, error))
    if (entry.path().filename() != "lock") fs::remove_all(entry.path(), error);
}

std::optional<SavedState> StateFolder::load() {
  const fs::path file = folder_ / "state.json";
  if (!fs::exists(file)) return std::nullopt;
  const Json json = parse_json(read_text_file(file), file.string());
  try {
    require(
        !json.at("recipe").is_string(), ErrorCode::mismatch,
        "{} was begun by an older version of Mneme; finish it with that one, or begin anew with --restart",
        folder_.string());
    const auto before = json.at("recipe").get<std::vector<std::string>>();
    const size_t begun = 1 + json.at("stage").get<size_t>() + (json.at("inner").is_null() ? 0 : 1);
    require(std::min(before.size(), recipe_.size()) >= begun &&
                std::equal(before.begin(), before.begin() + static_cast<ptrdiff_t>(begun), recipe_.begin()),
            ErrorCode::mismatch,
            "{} was begun with another recipe (only stages that are not begun may change); use that recipe "
            "again, name another output, or begin anew with --restart",
            folder_.string());
    require(json.at("original") == original_, ErrorCode::mismatch,
            "{} was begun with another model; name another output, or begin anew with --restart",
            folder_.string());
    SavedState out;
    out.stage = json.at("stage").get<size_t>();
    out.reports = json.at("reports");
    out.inner = json.at("inner");
    out.seconds = json.at("seconds").get<double>();
    const std::string snapshot = json.at("snapshot").get<std::string>();
    require(snapshot.starts_with("at-") && snapshot.find('/') == std::string::npos, ErrorCode::corrupt,
            "{}: no such snapshot", file.string());
    out.config = ModelConfig::from_json(read_text_file(folder_ / snapshot / "config.json"));
    out.tensors = read_tensors(folder_ / snapshot / "tensors.safetensors");
    snapshot_ = snapshot;
    number_ = std::stoull(snapshot.substr(3));
    return out;
  } catch (const Json::exception&) {
    fail(ErrorCode::corrupt, "{} is damaged; begin anew with --restart", file.string());
  } catch (const std::logic_error&) {
    fail(ErrorCode::corrupt, "{} is damaged; begin anew with --restart", file.string());
  }
}

void StateFolder::write_json(const SavedState& state) const {
  const Json json = {{"recipe", recipe_},        {"original", original_}, {"stage", state.stage},
                     {"reports", state.reports}, {"inner", state.inner},  {"seconds", state.seconds},
                     {"snapshot", snapshot_}};
  save_text(folder_ / "state.json", json.dump(1) + "\n");
}

void StateFolder::save(const SavedState& state) {
  const std::string name = fmt::format("at-{:06}", ++number_);
  const fs::path folder = folder_ / name;
  std::error_code error;
  fs::remove_all(folder, error);  // left by a process that was killed before it named it
  fs::create_directory(folder, error);
  require(!error, ErrorCode::io, "cannot create the folder {}: {}", folder.string(), error.message());
  save_text(folder / "config.json", state.config.to_json());
  write_tensors(folder / "tensors.safetensors", state.tensors);
  snapshot_ = name;
  write_json(state);
  for (const auto& entry : fs::directory_iterator(folder_, error))
    if (const std::string other = entry.path().filename().string();
        other.starts_with("at-") && other != name) {
      std::error_code ignored;
      fs::remove_all(entry.path(), ignored);
    }
}

void StateFolder::save_numbers(const SavedState& state) {
  if (snapshot_.empty()) return save(state);
  write_json(state);
}

void StateFolder::remove() {
  std::error_code error;
  fs::remove_all(folder_, error);
}

}  // namespace mneme::train

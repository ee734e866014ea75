// The identity of a checkpoint: what a snapshot or a memory pack was made with.
#include <sys/stat.h>

#include "core/fail.h"
#include "core/paths.h"
#include "core/sha256.h"
#include "model/checkpoint.h"
#include "model/load.h"

namespace mneme {
namespace {

// Path, size and time of every file: changes whenever the content can have changed.
std::string stamp_of(const TensorSource& tensors) {
  std::string stamp;
  for (const fs::path& path : tensors.paths()) {
    struct stat info {};
    if (::stat(path.c_str(), &info) != 0) continue;
    stamp += fmt::format("{}\n{} {}.{:09}\n", fs::absolute(path).string(), info.st_size, info.st_mtim.tv_sec,
                         info.st_mtim.tv_nsec);
  }
  return stamp;
}

std::string compute(const Checkpoint& checkpoint) {
  Sha256 all;
  all.update(checkpoint.config().to_json()).update("\n");
  for (const TensorInfo& info : checkpoint.tensors().tensors()) {
    std::string line = info.name + " " + std::string(dtype_info(info.type).name);
    for (const uint64_t dim : info.shape) line += " " + std::to_string(dim);
    all.update(line + " " + sha256_hex(checkpoint.tensors().data(info)) + "\n");
    checkpoint.tensors().release(info);
  }
  return all.hex();
}

bool looks_like_hash(const std::string& text) {
  return text.size() == 64 && text.find_first_not_of("0123456789abcdef") == std::string::npos;
}

}  // namespace

std::string checkpoint_hash(const std::string& path) {
  const Checkpoint checkpoint = open_checkpoint(path, LoadMode::mmap);
  const fs::path cached = cache_folder() / "model-hashes" / sha256_hex(stamp_of(checkpoint.tensors()));
  try {
    std::string known = read_text_file(cached, 1024);
    if (looks_like_hash(known)) return known;
  } catch (const Error&) {
    // Not cached yet: compute it.
  }
  const std::string hash = compute(checkpoint);
  try {
    ensure_folder(cached.parent_path());
    AtomicFile file(cached);
    file.write(hash);
    file.commit();
  } catch (const Error&) {
    // A cache that cannot be written costs time at the next use, nothing else.
  }
  return hash;
}

}  // namespace mneme

#include "train/convert/activations.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "core/checked.h"
#include "core/fail.h"

namespace mneme::train {
namespace {

/// Calls read or write until all bytes went through.
template <class Call>
void all_bytes(const fs::path& path, const char* what, uint64_t bytes, uint64_t offset, Call call) {
  uint64_t done = 0;
  while (done < bytes) {
    const ssize_t count = call(done, bytes - done, static_cast<off_t>(offset + done));
    if (count < 0 && errno == EINTR) continue;
    require(count > 0, ErrorCode::io, "cannot {} {}: {}", what, path.string(),
            count < 0 ? std::strerror(errno) : "the file is shorter than it was");
    done += static_cast<uint64_t>(count);
  }
}

}  // namespace

Activations::Activations(fs::path folder, const std::vector<uint32_t>& layers, uint64_t sequences,
                         uint64_t positions, uint64_t d_model)
    : folder_(std::move(folder)), sequences_(sequences), positions_(positions), d_model_(d_model) {
  const auto give_up = [&](const char* what, const fs::path& path, int error) {
    for (const File& file : files_) ::close(file.descriptor);  // no destructor follows
    fail(ErrorCode::io, "cannot {} {}: {}", what, path.string(), std::strerror(error));
  };
  const uint64_t size = checked_mul(sequences_, bytes_of_sequence(), "activations of a layer");
  std::error_code error;
  fs::create_directories(folder_, error);
  for (const uint32_t layer : layers) {
    const fs::path path = folder_ / fmt::format("layer-{:02}", layer);
    const int descriptor = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (descriptor < 0) give_up("write", path, errno);
    files_.push_back({layer, path, descriptor});
    struct stat there = {};
    if (::fstat(descriptor, &there) != 0) give_up("read", path, errno);
    if (static_cast<uint64_t>(there.st_size) == size) continue;
    reopened_ = false;
    const int failure =
        ::ftruncate(descriptor, 0) != 0 ? errno : ::posix_fallocate(descriptor, 0, static_cast<off_t>(size));
    if (failure != 0) remove();  // a full disk is given back what the files took of it
    require(failure == 0, ErrorCode::io,
            "cannot make {} of {} bytes: {}; \"at_once\" makes fewer files at a time", path.string(), size,
            std::strerror(failure));
  }
}

Activations::~Activations() {
  for (const File& file : files_) ::close(file.descriptor);
}

const Activations::File& Activations::file(uint32_t layer, uint64_t sequence) const {
  const auto found =
      std::find_if(files_.begin(), files_.end(), [&](const File& f) { return f.layer == layer; });
  require(found != files_.end() && sequence < sequences_, ErrorCode::internal,
          "there are no activations of layer {}, sequence {}", layer, sequence);
  return *found;
}

void Activations::put(uint32_t layer, uint64_t sequence, const Tensor& normed, const Tensor& mixed) {
  const File& to = file(layer, sequence);
  const Tensor both = at::cat({normed, mixed}, 0).to(at::kCPU, at::kBFloat16).contiguous();
  require(both.nbytes() == bytes_of_sequence(), ErrorCode::internal, "activations of another shape");
  const char* from = static_cast<const char*>(both.data_ptr());
  all_bytes(
      to.path, "write", bytes_of_sequence(), sequence * bytes_of_sequence(),
      [&](uint64_t done, uint64_t left, off_t at) { return ::pwrite(to.descriptor, from + done, left, at); });
}

std::pair<Tensor, Tensor> Activations::get(uint32_t layer, uint64_t sequence) const {
  const File& from = file(layer, sequence);
  const Tensor both = at::empty({2, static_cast<int64_t>(positions_), static_cast<int64_t>(d_model_)},
                                at::TensorOptions().dtype(at::kBFloat16));
  char* to = static_cast<char*>(both.data_ptr());
  all_bytes(
      from.path, "read", bytes_of_sequence(), sequence * bytes_of_sequence(),
      [&](uint64_t done, uint64_t left, off_t at) { return ::pread(from.descriptor, to + done, left, at); });
  const Tensor values = both.to(at::kFloat);
  return {values.narrow(0, 0, 1), values.narrow(0, 1, 1)};
}

void Activations::sync() const {
  for (const File& file : files_)
    require(::fdatasync(file.descriptor) == 0, ErrorCode::io, "cannot write {}: {}", file.path.string(),
            std::strerror(errno));
}

void Activations::remove() {
  for (const File& file : files_) ::close(file.descriptor);
  files_.clear();
  std::error_code error;
  fs::remove_all(folder_, error);
}

}  // namespace mneme::train

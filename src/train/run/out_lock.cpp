#include "train/run/out_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "core/fail.h"

namespace mneme::train {

OutLock::OutLock(const fs::path& out) {
  const fs::path path = out / ".lock";
  fd_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  require(fd_ >= 0, ErrorCode::io, "cannot create {}: {}", path.string(), std::strerror(errno));
  if (::flock(fd_, LOCK_EX | LOCK_NB) == 0) return;
  ::close(fd_);
  fail(ErrorCode::limit, "another mneme-train is writing {}; wait for it, or choose another --out",
       out.string());
}

OutLock::~OutLock() {
  ::close(fd_);
}

}  // namespace mneme::train

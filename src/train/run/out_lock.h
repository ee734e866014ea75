// One process at a time writes a run's folder.
#pragma once
#include "core/file.h"

namespace mneme::train {

/// Holds OUT/.lock while it lives; a killed process lets go of it. Throws Error(limit) if another process
/// holds it, Error(io) if it cannot be made.
class OutLock {
 public:
  explicit OutLock(const fs::path& out);
  ~OutLock();
  OutLock(const OutLock&) = delete;
  OutLock& operator=(const OutLock&) = delete;

 private:
  int fd_ = -1;
};

}  // namespace mneme::train

#include <cstdio>

#include "mneme/version.h"

int main() {
  std::printf("mneme %s\n", mneme::kVersion);
  return 0;
}

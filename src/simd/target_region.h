// MNEME_BEGIN_TARGET("avx2,...") ... MNEME_END_TARGET: functions in between are compiled for that instruction
// set, whatever the compiler's own flags are. Standard headers are included before the region, so that no
// inline function of theirs is compiled for a CPU that may not be there.
#pragma once
#define MNEME_PRAGMA(text) _Pragma(#text)
#if defined(__clang__)
#define MNEME_BEGIN_TARGET(isa) \
  MNEME_PRAGMA(clang attribute push(__attribute__((target(isa))), apply_to = function))
#define MNEME_END_TARGET _Pragma("clang attribute pop")
#else
#define MNEME_BEGIN_TARGET(isa) _Pragma("GCC push_options") MNEME_PRAGMA(GCC target(isa))
#define MNEME_END_TARGET _Pragma("GCC pop_options")
#endif

// Makes Highway's own dispatch follow active_isa(), so that MNEME_ISA and the tests reach every kernel.
#pragma once

namespace mneme {

/// Call before a HWY_DYNAMIC_DISPATCH. Costs one relaxed load once the choice is made.
void sync_highway_isa();

}  // namespace mneme

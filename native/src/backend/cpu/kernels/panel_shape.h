// Panels of weights, as products of all kinds have them: so many columns lie together.
#pragma once

#include "simd.h"

namespace tempora::TEMPORA_ISA {

constexpr int kPanelVectors = 2;
constexpr int kPanelColumns = kPanelVectors * kWidth;

}  // namespace tempora::TEMPORA_ISA

#include "narrow.h"

#include "attention_product.h"

namespace tempora::TEMPORA_ISA {
namespace {

void multiply_narrow(const NarrowProduct& p) {
  multiply<1>({p.a, p.a_row, p.a_step, p.b, p.b_row, p.c, p.c_row, p.m, static_cast<int>(p.n / kWidth), p.k, p.add});
}

}  // namespace

const NarrowKernels narrow_kernels = {multiply_narrow};

}  // namespace tempora::TEMPORA_ISA

// What lies between the products of a block's normalised input and its attention, as one operation.
#pragma once

#include <cstdint>

#include "matrix.h"

namespace tempora {

struct AttentionShape {
  int heads = 0;     // H
  int kv_heads = 0;  // G, divides H
  int head_dim = 0;  // C, even
  int window = 0;    // tokens visible, the query's own included; 0 for all
};

// Of queries, keys or values: A [T, heads·C]. What has a null pointer is left out.
struct HeadRows {
  Matrix out;
  Matrix raw;                  // the product where the head norm may not overwrite it; out is the product otherwise
  const void* bias = nullptr;  // A [heads·C], added to the product where it lies
  const void* norm = nullptr;  // A [C], the weight of each head's RMS norm
  float* rstd = nullptr;       // [T·heads] of the norm

  const Matrix& product() const { return norm == nullptr ? out : raw; }
};

// Where keys and values of T rows go in a layer's cache, as write_cache says.
struct CachePlaces {
  const std::int32_t* slots = nullptr;  // [T] device; null: nowhere
  void* keys = nullptr;
  void* values = nullptr;
};

struct AttentionInputs {
  HeadRows q, k, v;  // v has no norm and is not rotated
  AttentionShape shape;
  float norm_eps = 0;
  const std::int32_t* positions = nullptr;  // [T] device
  const float* frequencies = nullptr;       // [C/2] device
  CachePlaces cache;
};

}  // namespace tempora

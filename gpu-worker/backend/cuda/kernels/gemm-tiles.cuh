// A tile of a matrix product works on these rows and this weight. One product has one weight and
// its rows in order; a batch has weights at equal distances (attention heads); grouped products
// have a weight per expert and a list of row tiles that the device made.

struct GemmArgs {
  const void* x;  // [rows, x_stride]; activations or e4m3 codes
  i64 x_stride;
  const float* x_scales;  // [ceil(inputs / 128), x_scale_stride >= rows] of an e4m3 x, or null
  i64 x_scale_stride;
  const void* w;          // [outputs, inputs] in w_dtype
  const float* w_scales;  // [ceil(outputs / 128), ceil(inputs / 128)], or null
  i64 w_dtype, outputs, inputs;
  void* out;              // [rows, out_stride] in out_dtype: float32 or bf16
  i64 out_stride, rows, out_dtype;
  i64 x_batch, w_batch, out_batch;  // distances in elements from one product of a batch to the next
  const u64* w_table;               // [experts] addresses of weights; null if not grouped
  const u64* scale_table;           // [experts] addresses of scales, or null
  const int* tiles;                 // [tiles_max][2] expert (or -1: none) and first row of the tile
  const int* starts;                // [experts + 1] first row of each expert
  i64 tile_rows;                    // most rows of a tile of the list
  i64 row_tiles, batches;           // as many as the list or the rows have; products of a batch
  const u8* w_base;                 // where the experts' tensor map begins
};

struct __align__(64) TensorMap {
  u64 words[16];
};

/**
 * The copy engine needs these beside: maps of [rows, batch, inputs], a batch of experts 256 bytes
 * apart.
 */
struct MappedGemmArgs : GemmArgs {
  TensorMap x_map, w_map;
};

struct GemmTile {
  const void* w;
  const float* w_scales;
  i64 row, row_end;
};

/** Tile `index` of the rows; false if there is nothing to do. */
__device__ __forceinline__ bool find_tile(const GemmArgs& a, int index, int tile_rows,
                                          GemmTile& tile) {
  if (!a.tiles) {
    tile.w = a.w;
    tile.w_scales = a.w_scales;
    tile.row = (i64)index * tile_rows;
    tile.row_end = min(tile.row + tile_rows, a.rows);
    return tile.row < a.rows;
  }
  int expert = a.tiles[2 * index];
  if (expert < 0) return false;
  tile.w = (const void*)a.w_table[expert];
  tile.w_scales = a.scale_table ? (const float*)a.scale_table[expert] : nullptr;
  tile.row = a.tiles[2 * index + 1];
  tile.row_end = min(tile.row + a.tile_rows, (i64)a.starts[expert + 1]);
  return true;
}

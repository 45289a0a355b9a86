/*
 * Reads a JPEG row by row through libjpeg-turbo.
 *
 * TurboJPEG's own functions decode a whole image in one call and cannot be stopped. libjpeg's functions
 * can, but report errors by longjmp, which must not cross Rust frames: hence this file. Its functions
 * return a status; `stop` is asked once for each row of MCUs and each CHUNK of input.
 */
#include <setjmp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <jpeglib.h>
#include <jerror.h>

/* Input bytes handed to the library at a time: rows that are skipped hold a few milliseconds of work in so many. */
#define CHUNK 65536

enum status { OK = 0, DAMAGED = 1, TOO_MANY_SCANS = 2, STOPPED = 3, OUT_OF_MEMORY = 4 };

typedef int (*stop_fn)(const void *context);

struct reader {
  struct jpeg_decompress_struct info;
  struct jpeg_error_mgr errors;
  struct jpeg_source_mgr source;
  struct jpeg_progress_mgr progress;
  jmp_buf failed;
  enum status status;
  const JOCTET *rest;
  size_t rest_bytes;
  /* What follows the rest. */
  const JOCTET *then;
  size_t then_bytes;
  int max_scans;
  stop_fn stop;
  const void *context;
  int warned;
  int truncated;
};

struct facts {
  unsigned int width, height;
  int colour_space;
  /* No component has fewer samples than another. */
  int full_chroma;
};

static struct reader *reader_of(j_common_ptr info) { return (struct reader *)info->client_data; }

static void fail(struct reader *reader, enum status status)
{
  reader->status = status;
  longjmp(reader->failed, 1);
}

static void on_error(j_common_ptr info)
{
  fail(reader_of(info), info->err->msg_code == JERR_OUT_OF_MEMORY ? OUT_OF_MEMORY : DAMAGED);
}

static void on_message(j_common_ptr info, int level)
{
  if (level >= 0) return;
  reader_of(info)->warned = 1;
  if (info->err->msg_code == JWRN_JPEG_EOF) reader_of(info)->truncated = 1;
}

static void no_output(j_common_ptr info) { (void)info; }

static void check_stop(struct reader *reader)
{
  if (reader->stop(reader->context)) fail(reader, STOPPED);
}

static void on_progress(j_common_ptr info)
{
  struct reader *reader = reader_of(info);
  if (((j_decompress_ptr)info)->input_scan_number > reader->max_scans) fail(reader, TOO_MANY_SCANS);
  check_stop(reader);
}

static void source_begins_or_ends(j_decompress_ptr info) { (void)info; }

static boolean fill(j_decompress_ptr info)
{
  static const JOCTET end[2] = { 0xFF, JPEG_EOI };
  struct reader *reader = reader_of((j_common_ptr)info);
  check_stop(reader);
  if (reader->rest_bytes == 0) {
    reader->rest = reader->then;
    reader->rest_bytes = reader->then_bytes;
    reader->then_bytes = 0;
  }
  if (reader->rest_bytes == 0) {
    /* As libjpeg's own sources do: a warning and an end marker. */
    WARNMS(info, JWRN_JPEG_EOF);
    reader->source.next_input_byte = end;
    reader->source.bytes_in_buffer = sizeof end;
    return TRUE;
  }
  size_t bytes = reader->rest_bytes < CHUNK ? reader->rest_bytes : CHUNK;
  reader->source.next_input_byte = reader->rest;
  reader->source.bytes_in_buffer = bytes;
  reader->rest += bytes;
  reader->rest_bytes -= bytes;
  return TRUE;
}

static void skip(j_decompress_ptr info, long bytes)
{
  struct jpeg_source_mgr *source = info->src;
  if (bytes <= 0) return;
  while ((size_t)bytes > source->bytes_in_buffer) {
    bytes -= (long)source->bytes_in_buffer;
    fill(info);
  }
  source->next_input_byte += bytes;
  source->bytes_in_buffer -= (size_t)bytes;
}

static enum status create(struct reader *reader)
{
  if (setjmp(reader->failed)) return reader->status;
  jpeg_create_decompress(&reader->info);
  return OK;
}

/* NULL where there is no memory. */
struct reader *lfm_jpeg_new(stop_fn stop, const void *context)
{
  struct reader *reader = calloc(1, sizeof *reader);
  if (reader == NULL) return NULL;
  reader->stop = stop;
  reader->context = context;
  reader->info.client_data = reader;
  reader->info.err = jpeg_std_error(&reader->errors);
  reader->errors.error_exit = on_error;
  reader->errors.emit_message = on_message;
  reader->errors.output_message = no_output;
  if (create(reader) != OK) {
    jpeg_destroy_decompress(&reader->info);
    free(reader);
    return NULL;
  }
  reader->source.init_source = source_begins_or_ends;
  reader->source.fill_input_buffer = fill;
  reader->source.skip_input_data = skip;
  reader->source.resync_to_restart = jpeg_resync_to_restart;
  reader->source.term_source = source_begins_or_ends;
  reader->info.src = &reader->source;
  reader->progress.progress_monitor = on_progress;
  reader->info.progress = &reader->progress;
  return reader;
}

void lfm_jpeg_free(struct reader *reader)
{
  jpeg_destroy_decompress(&reader->info);
  free(reader);
}

/* The image is `bytes` and then `more`, which must outlive the reader. */
int lfm_jpeg_header(struct reader *reader, const unsigned char *bytes, size_t length, const unsigned char *more,
                    size_t more_length, struct facts *facts)
{
  struct jpeg_decompress_struct *info = &reader->info;
  if (setjmp(reader->failed)) return reader->status;
  reader->rest = bytes;
  reader->rest_bytes = length;
  reader->then = more;
  reader->then_bytes = more_length;
  jpeg_read_header(info, TRUE);
  facts->width = info->image_width;
  facts->height = info->image_height;
  facts->colour_space = info->jpeg_color_space;
  facts->full_chroma = 1;
  for (int i = 1; i < info->num_components; i++) {
    const jpeg_component_info *first = &info->comp_info[0], *other = &info->comp_info[i];
    if (other->h_samp_factor != first->h_samp_factor || other->v_samp_factor != first->v_samp_factor)
      facts->full_chroma = 0;
  }
  return OK;
}

/* Reads all scans but the last. `max_memory` bounds the coefficients kept, in bytes. */
int lfm_jpeg_start(struct reader *reader, int colour_space, int max_scans, long max_memory)
{
  struct jpeg_decompress_struct *info = &reader->info;
  if (setjmp(reader->failed)) return reader->status;
  reader->max_scans = max_scans;
  info->mem->max_memory_to_use = max_memory;
  info->out_color_space = (J_COLOR_SPACE)colour_space;
  info->dct_method = JDCT_ISLOW;
  info->do_fancy_upsampling = TRUE;
  jpeg_start_decompress(info);
  return OK;
}

/* `row` must hold the width in pixels of the colour space. */
int lfm_jpeg_row(struct reader *reader, unsigned char *row)
{
  JSAMPROW rows[1] = { row };
  if (setjmp(reader->failed)) return reader->status;
  if (jpeg_read_scanlines(&reader->info, rows, 1) != 1) return DAMAGED;
  return OK;
}

/*
 * Skips rows whose pixels nobody wants, at most `rows`: their coefficients are decoded, and damage is
 * noticed, but neither transformed nor upsampled. `*skipped` says how many, 0 where that is no gain. The rest,
 * two rows of MCUs or more, is left to lfm_jpeg_row: upsampling looks at the row above, which the library
 * does not have after a skip. The image must not be lossless.
 */
int lfm_jpeg_skip(struct reader *reader, unsigned int rows, unsigned int *skipped)
{
  struct jpeg_decompress_struct *info = &reader->info;
  unsigned int unit = (unsigned int)info->max_v_samp_factor * DCTSIZE;
  unsigned int left = info->output_height - info->output_scanline;
  unsigned int units = (rows < left ? rows : left) / unit;
  *skipped = 0;
  if (info->output_scanline % unit != 0 || units < 4) return OK;
  if (setjmp(reader->failed)) return reader->status;
  /* Arithmetic coding hides any number of MCUs in a chunk of input, so `stop` would not be asked. */
  if (info->arith_code && !jpeg_has_multiple_scans(info)) return OK;
  *skipped = jpeg_skip_scanlines(info, (units - 2) * unit);
  return OK;
}

/* Reads on to the end marker. */
int lfm_jpeg_finish(struct reader *reader, int *warned, int *truncated)
{
  if (setjmp(reader->failed)) return reader->status;
  jpeg_finish_decompress(&reader->info);
  *warned = reader->warned;
  *truncated = reader->truncated;
  return OK;
}

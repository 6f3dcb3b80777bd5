/* The loader's questions about an epilogue, float or fixed. */
#include "bd_check.h"
#include "bd_epilogue.h"

static int dtype_in(const bd_view *view, uint32_t set) {
    return view->rows_held != 0 && view->order == 0 && view->dtype <= BD_UBIT &&
           ((set >> view->dtype) & 1u) != 0;
}

/* Absent, or a whole array. */
static int optional(uint32_t offset, uint32_t channels, uint32_t constants_size) {
    return offset == BD_ABSENT || bd_holds_words(constants_size, offset, channels);
}

static int arrays_fit(const bd_epilogue *e, uint32_t channels, uint32_t constants_size) {
    return optional(e->mul, channels, constants_size) && optional(e->add, channels, constants_size) &&
           optional(e->residual_mul, channels, constants_size) &&
           optional(e->positive, channels, constants_size) &&
           optional(e->negative, channels, constants_size) && optional(e->bias, channels, constants_size) &&
           optional(e->low, channels, constants_size) && optional(e->high, channels, constants_size);
}

/* Parameters that belong together are there together. */
static int stages_agree(const bd_epilogue *e, const bd_view *residual, const bd_view *packed) {
    const int affine = e->mul != BD_ABSENT, slopes = e->positive != BD_ABSENT;
    return (e->add != BD_ABSENT) == affine && (e->negative != BD_ABSENT) == slopes &&
           (e->residual_mul == BD_ABSENT || affine) && (e->bias == BD_ABSENT || slopes) &&
           (e->residual_mul != BD_ABSENT) == !bd_is_absent(residual) &&
           (e->low != BD_ABSENT) == !bd_is_absent(packed) &&
           (e->high != BD_ABSENT) == (!bd_is_absent(packed) && packed->dtype == BD_TRIT);
}

static int shift_fits(int shift) {
    return shift >= -31 && shift <= 15;
}

/* The step's record, or NULL where it does not lie in the constants. */
static const bd_epilogue *record_of(const bd_step *step, const uint8_t *constants, uint32_t constants_size) {
    if (step->epilogue_at % BD_ALIGN != 0 ||
        (uint64_t)step->epilogue_at + sizeof(bd_epilogue) > constants_size) {
        return NULL;
    }
    return (const void *)(constants + step->epilogue_at);
}

/* Channels of the outputs, 0 where they are too many: no map has 0. */
static uint32_t channels_of(const bd_step *step, const bd_epilogue *e) {
    const uint64_t all = (uint64_t)step->out_channels * (e->repeats + 1u);
    return all <= 0xffffu ? (uint32_t)all : 0;
}

/* Whether residual and outputs are maps of the accumulators' size. */
static int maps_fit(const bd_step *step, const bd_epilogue *e, const bd_view in[], const bd_view out[],
                    uint32_t residuals, uint32_t channels) {
    const bd_view *acc = &in[0], *residual = &in[1], *trunk = &out[0], *packed = &out[1];
    int fits = channels != 0;
    if (!bd_is_absent(residual)) {
        const int same_map = residual->height == acc->height && residual->width == acc->width;
        const int vector = residual->height == 1 && residual->width == 1; /* for all pixels */
        fits = fits && dtype_in(residual, residuals) && (same_map || vector) &&
               residual->channels == e->residual_channels && e->residual_channels <= channels;
    }
    if (!bd_is_absent(trunk)) {
        /* Levels that nothing changes stay where they are: epilogues store elements. */
        fits = fits && trunk->dtype <= BD_I32 && bd_is(trunk, e->dtype) && bd_is_map(step, trunk, channels);
    }
    if (!bd_is_absent(packed)) {
        fits = fits && (bd_is(packed, BD_BIT) || bd_is(packed, BD_TRIT) || bd_is(packed, BD_UBIT)) &&
               bd_is_map(step, packed, channels);
    }
    return fits && (!bd_is_absent(trunk) || !bd_is_absent(packed));
}

bd_status bd_check_epilogue(const bd_step *step, const uint8_t *constants, uint32_t constants_size,
                            const bd_view in[], const bd_view out[], uint32_t accumulators,
                            uint32_t residuals, uint32_t produced) {
    const bd_view *acc = &in[0];
    const bd_epilogue *e = record_of(step, constants, constants_size);
    if (e == NULL) {
        return BD_ERROR_STEP;
    }
    const uint32_t channels = channels_of(step, e);
    const int computes = e->mul != BD_ABSENT || e->positive != BD_ABSENT;
    int fits = dtype_in(acc, accumulators) && bd_is_output(step, acc) && stages_agree(e, &in[1], &out[1]);
    fits = fits && channels != 0 && arrays_fit(e, channels, constants_size);
    fits = fits && shift_fits(e->shift) && shift_fits(e->residual_shift);
    if (computes || produced == BD_F32) {
        fits = fits && e->dtype == produced;
    } else { /* as they are, or widened */
        fits = fits && (e->dtype == acc->dtype || e->dtype == BD_I32);
    }
    if (e->positive != BD_ABSENT && e->mul == BD_ABSENT && produced != BD_F32) {
        fits = fits && acc->dtype != BD_I32; /* a fixed slope's product needs an operand of 16 bits */
    }
    return fits && maps_fit(step, e, in, out, residuals, channels) ? BD_OK : BD_ERROR_STEP;
}

bd_status bd_check_packed_epilogue(const bd_step *step, const uint8_t *constants, uint32_t constants_size,
                                   const bd_view in[], const bd_view out[], uint32_t accumulators,
                                   uint32_t order, uint32_t residuals, uint32_t produced, uint64_t bytes) {
    const bd_view *acc = &in[0];
    const bd_epilogue *e = record_of(step, constants, constants_size);
    if (e == NULL) {
        return BD_ERROR_STEP;
    }
    const uint32_t others = e->add & e->residual_mul & e->positive & e->negative & e->bias & e->low & e->high;
    int fits = others == BD_ABSENT && e->mul % 4u == 0 && (uint64_t)e->mul + bytes <= constants_size;
    fits = fits && acc->rows_held != 0 && acc->dtype <= BD_I32 && ((accumulators >> acc->dtype) & 1u) != 0 &&
           acc->order == order && bd_is_output(step, acc) && e->dtype == produced;
    fits = fits && shift_fits(e->shift) && shift_fits(e->residual_shift);
    return fits && maps_fit(step, e, in, out, residuals, channels_of(step, e)) ? BD_OK : BD_ERROR_STEP;
}

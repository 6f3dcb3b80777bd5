/* The packed epilogue of Armv6-M, whose instructions Armv7-M has too: for processors without packed SIMD. */
#define BD_EPILOGUE_WORD_SET    v7m
#define BD_EPILOGUE_WORD_COUNTS 0
#include "../v6m/epilogue_word.c"
